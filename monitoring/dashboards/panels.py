"""The house style of all panels: data source, units, legend, colours that mean the same everywhere.

A panel's title is the reader's question; its description says what answers it and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import (
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.models import common, dashboard, units
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

GREEN, BLUE, RED, ORANGE, PURPLE, GREY = "green", "blue", "red", "orange", "purple", "#8e8e8e"
CODE_COLOURS = {"/^1/": GREY, "/^2/": GREEN, "/^3/": BLUE, "/^4/": ORANGE, "/^5/": RED}
WORKER_COLOURS = {"serving": GREEN, "booting": BLUE, "draining": PURPLE, "stuck": RED}
EXIT_COLOURS = {
    "crash": RED,
    "killed": "dark-red",
    "timeout": ORANGE,
    "memory": "yellow",
    "max_requests": PURPLE,
    "retired": BLUE,
}
RESULT_COLOURS = {"succeeded": BLUE, "success": GREEN, "failed": RED, "error": RED, "retry": ORANGE}
QUANTILE_COLOURS = {"p50": GREEN, "p95": ORANGE, "p99": RED}
STATES = {
    0: ("not ready", ORANGE),
    1: ("serving", GREEN),
    2: ("replacing workers", BLUE),
    3: ("reload failed", RED),
}
SOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")
Panel = Any  # the SDK's builders have no common class but Builder[Panel]


@dataclass(frozen=True)
class Query:
    """One PromQL query and the name of what it returns; labels in the name as `{{label}}`.

    `exemplars` has Grafana draw the exemplars of its series, where there are some (`--exemplars`).
    """

    expr: str
    legend: str
    exemplars: bool = False


def _target(query: Query, position: int, *, instant: bool = False) -> prometheus.Dataquery:
    target = (
        prometheus.Dataquery()
        .datasource(SOURCE)
        .expr(query.expr)
        .legend_format(query.legend)
        .ref_id(chr(ord("A") + position))
    )
    if query.exemplars:
        target = target.exemplar(exemplar=True)
    return target.instant() if instant else target.range()


def _prepare(panel: Panel, title: str, description: str, queries: Sequence[Query]) -> Panel:
    panel = panel.title(title).description(description).datasource(SOURCE)
    for position, query in enumerate(queries):
        panel = panel.with_target(_target(query, position))
    return panel


def _thresholds(steps: Mapping[float, str], *, base: str) -> builders.ThresholdsConfig:
    all_steps = [
        dashboard.Threshold(color=base),
        *(dashboard.Threshold(value=value, color=color) for value, color in steps.items()),
    ]
    return builders.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(all_steps)


def _fixed_colour(colour: str) -> list[dashboard.DynamicConfigValue]:
    value = {"mode": "fixed", "fixedColor": colour}
    return [dashboard.DynamicConfigValue(id_val="color", value=value)]


def _colour(panel: Panel, colours: Mapping[str, str]) -> Panel:
    for name, colour in colours.items():
        if name.startswith("/"):
            panel = panel.override_by_regexp(name, _fixed_colour(colour))
        else:
            panel = panel.override_by_name(name, _fixed_colour(colour))
    return panel


def figure(
    title: str,
    description: str,
    expr: str,
    *,
    unit: str,
    steps: Mapping[float, str] | None = None,
    base: str = GREEN,
    texts: Mapping[int, tuple[str, str]] | None = None,
    decimals: int | None = None,
    width: int = 4,
) -> Panel:
    """Return one large number; `steps` gives the colour from a value on, `texts` words for values."""
    panel = _prepare(stat.Panel(), title, description, [Query(expr, title)])
    panel = (
        panel.unit(unit)
        .height(4)
        .span(width)
        .thresholds(_thresholds(steps or {}, base=base))
        .color_mode(common.BigValueColorMode.VALUE)
        .graph_mode(common.BigValueGraphMode.AREA)
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    if unit == units.Short:
        panel = panel.decimals(0)  # things that are counted
    if decimals is not None:
        panel = panel.decimals(decimals)
    return panel.mappings([_mapping(texts)]) if texts else panel


def _mapping(texts: Mapping[int, tuple[str, str]]) -> dashboard.ValueMap:
    return dashboard.ValueMap(
        options={
            str(value): dashboard.ValueMappingResult(text=text, color=colour, index=index)
            for index, (value, (text, colour)) in enumerate(texts.items())
        }
    )


def lines(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    colours: Mapping[str, str] | None = None,
    stacked: bool = False,
    bars: bool = False,
    limit: float | None = None,
    top: float | None = None,
    has_many: bool = False,
    width: int = 12,
    height: int = 8,
) -> Panel:
    """Return series over time. `limit` draws a dashed red line there; `top` fixes the axis' end.

    The names of very many series (`has_many`) are listed beside them, where there is room for all.
    """
    panel = _prepare(timeseries.Panel(), title, description, queries)
    panel = (
        panel.unit(unit)
        .height(height)
        .span(width)
        .min(0)
        .line_width(2)
        .show_points(common.VisibilityMode.NEVER)
        .draw_style(common.GraphDrawStyle.BARS if bars else common.GraphDrawStyle.LINE)
        .fill_opacity(70 if bars else 30 if stacked else 8)
        .tooltip(
            common_builders.VizTooltipOptions()
            .mode(common.TooltipDisplayMode.MULTI)
            .sort(common.SortOrder.DESCENDING)
        )
        .legend(
            common_builders.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.RIGHT if has_many else common.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )
    if stacked:
        panel = panel.stacking(
            common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A")
        )
    if limit is not None:
        panel = panel.thresholds(_thresholds({limit: RED}, base="transparent"))
        panel = panel.thresholds_style(
            common_builders.GraphThresholdsStyleConfig().mode(
                common.GraphThresholdsStyleMode.DASHED
            )
        )
    if top is not None:
        panel = panel.max(top)
    if bars:
        # Of a bar's width, which $__interval in its query is then; more than two scrapes everywhere.
        panel = panel.interval("1m")
    return _colour(panel, colours or {})


def states(
    title: str,
    description: str,
    query: Query,
    *,
    texts: Mapping[int, tuple[str, str]],
    width: int = 12,
    height: int = 8,
) -> Panel:
    """Return a band of colours for each series; `texts` names and colours each value."""
    panel = _prepare(statetimeline.Panel(), title, description, [query])
    return (
        panel.unit(units.NoUnit)
        .height(height)
        .span(width)
        .mappings([_mapping(texts)])
        .show_value(common.VisibilityMode.NEVER)
        .row_height(0.8)
        .fill_opacity(85)
        .legend(
            common_builders.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )


def spread(title: str, description: str, expr: str, *, width: int = 12, height: int = 8) -> Panel:
    """Return a heatmap of a histogram's buckets in seconds."""
    target = _target(Query(expr, "{{le}}"), 0).format(PromQueryFormat.HEATMAP)
    return (
        heatmap.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .with_target(target)
        .unit(units.Seconds)
        .height(height)
        .span(width)
        .calculate(False)
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heatmap_models.HeatmapColorMode.SCHEME)
            .scheme("Blues")
            .steps(64)
        )
        .y_axis(heatmap.YAxisConfig().unit(units.Seconds))
        .cell_values(heatmap.CellValues().unit(units.RequestsPerSecond))
    )


@dataclass(frozen=True)
class Column:
    """One column of a table: its name, the query that fills it, its unit and colours."""

    name: str
    expr: str
    unit: str
    steps: Mapping[float, str] | None = None
    texts: Mapping[int, tuple[str, str]] | None = None


def grid(
    title: str,
    description: str,
    keys: Mapping[str, str],
    columns: Sequence[Column],
    *,
    link: str,
    height: int = 6,
) -> Panel:
    """Return a table with a row for each combination of labels.

    `keys` are those labels and their headings; the last one links to `link`.
    """
    panel = table.Panel().title(title).description(description).datasource(SOURCE)
    for position, column in enumerate(columns):
        target = _target(Query(column.expr, column.name), position, instant=True)
        panel = panel.with_target(target.format(PromQueryFormat.TABLE))
    names = {f"Value #{chr(ord('A') + n)}": column.name for n, column in enumerate(columns)}
    panel = (
        panel.with_transformation(dashboard.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(
            dashboard.DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": {"Time": True},
                    "indexByName": {name: n for n, name in enumerate([*keys, *names])},
                    "renameByName": {**keys, **names},
                },
            )
        )
        .unit(units.NoUnit)
        .height(height)
        .span(24)
    )
    for column in columns:
        panel = panel.override_by_name(column.name, _cell(column))
    url = dashboard.DynamicConfigValue(
        id_val="links", value=[{"title": "Show this app", "url": link, "targetBlank": False}]
    )
    return panel.override_by_name(list(keys.values())[-1], [url])


def _cell(column: Column) -> list[dashboard.DynamicConfigValue]:
    properties = [dashboard.DynamicConfigValue(id_val="unit", value=column.unit)]
    if column.steps is not None:
        thresholds = _thresholds(column.steps, base=GREEN).build()
        properties += [
            dashboard.DynamicConfigValue(id_val="thresholds", value=thresholds),
            dashboard.DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-text"}),
        ]
    if column.texts is not None:
        properties += [
            dashboard.DynamicConfigValue(id_val="mappings", value=[_mapping(column.texts)]),
            dashboard.DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-text"}),
        ]
    return properties
