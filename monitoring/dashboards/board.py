"""What all dashboards have: variables, links between them, reloads as annotations, rows."""

from __future__ import annotations

from collections.abc import Sequence

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard as models

from monitoring.dashboards import panels
from monitoring.dashboards.queries import APP_OF_POD, increase

TAG = "wsgiapp"
# Of the operator's dashboard too: it shows the namespace in which the operator runs.
PREFORK_NAMESPACES = "label_values(wsgi_build_info, namespace)"
OPERATOR_NAMESPACES = "label_values(wsgiapp_operator_leader, namespace)"


def start(uid: str, title: str, description: str) -> builders.Dashboard:
    """Return an empty dashboard with the variable `datasource` and links to the others."""
    link = (
        builders.DashboardLink("Dashboards of WsgiApps")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(True)
        .keep_time(True)
        .include_vars(True)
    )
    source = builders.DatasourceVariable("datasource").label("Data source").type("prometheus")
    return (
        builders.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .readonly()
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time("now-1h", "now")
        .refresh("30s")
        .link(link)
        .with_variable(source)
    )


def add_scope(
    board: builders.Dashboard, *, one_app: bool = False, namespaces: str = PREFORK_NAMESPACES
) -> builders.Dashboard:
    """Add the variables `namespace` and, for the dashboard of one app, `app`."""
    namespace = _variable("namespace", "Namespace", namespaces)
    if not one_app:
        return board.with_variable(namespace.multi(True).include_all(True).all_value(".+"))
    pods = 'label_values(wsgi_build_info{namespace=~"$namespace"}, pod)'
    return board.with_variable(namespace).with_variable(
        _variable("app", "App", pods).regex(APP_OF_POD)
    )


def _variable(name: str, label: str, query: str) -> builders.QueryVariable:
    return (
        builders.QueryVariable(name)
        .label(label)
        .datasource(panels.SOURCE)
        .query({"query": query, "refId": name})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
    )


def annotate_reloads(board: builders.Dashboard, selected: str) -> builders.Dashboard:
    """Mark the times of reloads in all panels: blue where they succeeded, red where they failed."""
    for result, colour in (("succeeded", panels.BLUE), ("failed", panels.RED)):
        grown = increase("wsgi_reloads_total", selected, f'result="{result}"')
        board = board.annotation(
            builders.AnnotationQuery()
            .name(f"Reloads that {result}")
            .datasource(panels.SOURCE)
            .enable(True)
            .icon_color(colour)
            .expr(f"sum by (pod) ({grown}) > 0")
        )
    return board


def add_row(
    board: builders.Dashboard, title: str, row: Sequence[panels.Panel]
) -> builders.Dashboard:
    """Add panels from left to right under a heading."""
    board = board.with_row(builders.Row(title))
    for panel in row:
        board = board.with_panel(panel)
    return board
