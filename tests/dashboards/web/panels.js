// A panel of a Grafana dashboard, with its recorded series, as the spec and data of a Perses panel. Pure.

const COLOURS = {
  green: "#37a85a",
  blue: "#3b82d6",
  red: "#e0433f",
  "dark-red": "#9b1c31",
  orange: "#ee8a1d",
  yellow: "#dfb313",
  purple: "#9a63cf",
  transparent: "transparent",
};
const UNITS = {
  short: { unit: "decimal", shortValues: true, decimalPlaces: 1 },
  none: { unit: "decimal" },
  s: { unit: "seconds" },
  percentunit: { unit: "percent-decimal", decimalPlaces: 1 },
  reqps: { unit: "decimal", shortValues: true, decimalPlaces: 1 },
  ops: { unit: "decimal", shortValues: true, decimalPlaces: 2 },
  wps: { unit: "decimal", shortValues: true, decimalPlaces: 2 },
  bytes: { unit: "bytes", shortValues: true, decimalPlaces: 1 },
};

// Perses writes these out at each tick; beside the title they take no room.
const PER_SECOND = { reqps: "requests/s", ops: "operations/s", wps: "writes/s" };

export function unitOf(panel) {
  if (panel.type === "heatmap") return "per second";
  return panel.type === "timeseries" ? (PER_SECOND[panel.fieldConfig.defaults.unit] ?? "") : "";
}

export function colour(name) {
  return COLOURS[name] ?? name;
}

function format(unit, decimals) {
  const known = UNITS[unit] ?? { unit: "decimal" };
  return decimals === undefined || decimals === null ? known : { ...known, decimalPlaces: decimals };
}

function nameOf(legend, labels) {
  return legend.replace(/{{\s*(\w+)\s*}}/g, (_, label) => labels[label] ?? "").trim();
}

function points(values) {
  return values.map(([time, text]) => [time * 1000, text === "NaN" ? null : Number(text)]);
}

/** The series of all queries, each with the name of its legend. */
function seriesOf(panel) {
  return panel.targets.flatMap((target, query) =>
    target.series.map((each) => ({
      query,
      step: target.step,
      name: nameOf(target.legendFormat, each.metric),
      labels: each.metric,
      values: points(each.values),
    })),
  );
}

function result(series, range) {
  const data = {
    timeRange: { start: new Date(range.start * 1000), end: new Date(range.end * 1000) },
    stepMs: (series[0]?.step ?? range.step) * 1000,
    series: series.map((each) => ({ ...each, formattedName: each.name })),
  };
  return { definition: { kind: "TimeSeriesQuery", spec: { plugin: { kind: "Recorded", spec: {} } } }, data };
}

function ownColour(panel, name) {
  for (const { matcher, properties } of panel.fieldConfig.overrides ?? []) {
    const holds =
      matcher.id === "byRegexp"
        ? new RegExp(matcher.options.slice(1, -1)).test(name)
        : matcher.options === name;
    const set = properties.find((property) => property.id === "color");
    if (holds && set) return colour(set.value.fixedColor);
  }
  return undefined;
}

function mappings(maps) {
  return (maps ?? []).flatMap((map) =>
    Object.entries(map.options).map(([value, result]) => ({
      kind: "Value",
      spec: { value, result: { value: result.text, color: colour(result.color) } },
    })),
  );
}

function thresholds(steps) {
  return {
    defaultColor: colour(steps[0].color),
    steps: steps.slice(1).map((step) => ({ value: step.value, color: colour(step.color), name: "limit" })),
  };
}

export function statOf(panel, range) {
  const { unit, decimals, thresholds: limits, mappings: maps } = panel.fieldConfig.defaults;
  const spec = {
    calculation: "last-number",
    format: format(unit, decimals),
    thresholds: thresholds(limits.steps),
    mappings: mappings(maps),
    sparkline: maps?.length ? undefined : {},
    valueFontSize: 26,
  };
  return { spec, queryResults: [result(seriesOf(panel), range)] };
}

export function linesOf(panel, range) {
  const { unit, custom, max, decimals, thresholds: limits } = panel.fieldConfig.defaults;
  const series = seriesOf(panel);
  const names = series.reduce((sum, each) => sum + each.name.length + 6, 0);
  const bars = custom.drawStyle === "bars";
  // One query for each series: Perses gives colours to queries.
  const querySettings = series.flatMap((each, queryIndex) => {
    const fixed = ownColour(panel, each.name);
    return fixed ? [{ queryIndex, colorMode: "fixed", colorValue: fixed }] : [];
  });
  const spec = {
    // As in Grafana: many series are listed beside the chart.
    legend: { position: panel.options.legend.placement, mode: "list", size: names > 90 ? "medium" : "small" },
    yAxis: { show: true, min: 0, max: max ?? undefined, format: format(unit, decimals) },
    visual: {
      display: bars ? "bar" : "line",
      lineWidth: 1.75,
      areaOpacity: bars ? 0.8 : series.length > 6 && custom.stacking?.mode !== "normal" ? 0 : (custom.fillOpacity ?? 0) / 100,
      stack: custom.stacking?.mode === "normal" ? "all" : "none",
      palette: { mode: "categorical" },
      connectNulls: false,
    },
    querySettings,
    thresholds: custom.thresholdsStyle ? thresholds(limits.steps) : undefined,
  };
  return { spec, queryResults: series.map((each) => result([each], range)) };
}

export function statesOf(panel, range) {
  const spec = {
    legend: { position: "bottom", mode: "list", size: "small" },
    mappings: mappings(panel.fieldConfig.defaults.mappings),
  };
  return { spec, queryResults: [result(seriesOf(panel), range)] };
}

/** Rows of buckets instead of a linear axis, as Grafana draws them. */
export function spreadOf(panel, range) {
  const times = [];
  for (let time = range.start; time <= range.end; time += range.step) times.push(Math.round(time * 1000));
  const rows = [...panel.targets[0].series]
    .map((each) => ({ bound: each.metric.le === "+Inf" ? Infinity : Number(each.metric.le), values: each.values }))
    .sort((one, other) => one.bound - other.bound);
  const data = [];
  rows.forEach((row, y) => {
    const below = new Map(y ? rows[y - 1].values : []);
    for (const [time, text] of row.values) {
      const x = Math.round((time - range.start) / range.step);
      const count = Math.max(0, Number(text) - Number(below.get(time) ?? 0));
      if (count > 0.005) data.push({ value: [x, y, count], label: count.toFixed(2) });
    }
  });
  const used = data.map((each) => each.value[1]);
  const first = Math.max(0, Math.min(...used) - 1);
  const last = Math.max(...used) + 1;
  return {
    xAxisCategories: times,
    yAxisCategories: rows.slice(first, last + 1).map((row) => seconds(row.bound)),
    data: data.map((each) => ({ ...each, value: [each.value[0], each.value[1] - first, each.value[2]] })),
    countMin: 0,
    countMax: Math.max(...data.map((each) => each.value[2])),
  };
}

function seconds(bound) {
  if (bound === Infinity) return "more";
  return bound < 1 ? `${+(bound * 1000).toFixed(2)} ms` : `${bound} s`;
}

export function tableOf(panel) {
  const columns = panel.transformations.find((each) => each.id === "organize").options;
  const names = Object.entries(columns.indexByName)
    .sort(([, one], [, other]) => one - other)
    .map(([key]) => [key, columns.renameByName[key]]);
  const rows = new Map();
  panel.targets.forEach((target, query) => {
    for (const each of target.series) {
      const key = JSON.stringify(each.metric);
      const row = rows.get(key) ?? { ...each.metric };
      const last = each.values.at(-1);
      row[`Value #${String.fromCharCode(65 + query)}`] = last && last[1] !== "NaN" ? Number(last[1]) : null;
      rows.set(key, row);
    }
  });
  const cellsOf = (heading) =>
    (panel.fieldConfig.overrides ?? []).find((each) => each.matcher.options === heading)?.properties ?? [];
  return {
    columns: names.map(([key, heading]) => ({ key, heading, width: 1200 / names.length, ...cellStyle(cellsOf(heading)) })),
    rows: [...rows.values()],
  };
}

function cellStyle(properties) {
  const get = (id) => properties.find((each) => each.id === id)?.value;
  const limits = get("thresholds")?.steps;
  const texts = mappings(get("mappings"));
  return {
    format: get("unit") && get("unit") !== "none" ? format(get("unit")) : undefined,
    colourOf: (value) => {
      const mapped = texts.find((each) => each.spec.value === String(value));
      if (mapped) return mapped.spec.result.color;
      const step = limits?.filter((each) => each.value === null || each.value === undefined || value >= each.value).at(-1);
      return step && colour(step.color);
    },
    textOf: (value) => texts.find((each) => each.spec.value === String(value))?.spec.result.value,
  };
}
