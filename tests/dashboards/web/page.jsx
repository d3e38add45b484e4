// Draws one dashboard with Perses' panels from recorded data: ?board=…&theme=light|dark. Sets document.title to
// "drawn" when all panels stand.
import { ThemeProvider } from "@mui/material";
import { ChartsProvider, SnackbarProvider, Table, generateChartsTheme, getTheme } from "@perses-dev/components";
import { formatValue } from "@perses-dev/core";
import { TimeRangeProvider } from "@perses-dev/plugin-system";
import { HeatMapChart } from "@perses-dev/heatmap-chart-plugin/lib/components/HeatMapChart.js";
import { StatChartPanel } from "@perses-dev/stat-chart-plugin/lib/StatChartPanel.js";
import { StatusHistoryPanel } from "@perses-dev/status-history-chart-plugin/lib/StatusHistoryPanel.js";
import { TimeSeriesChartPanel } from "@perses-dev/timeseries-chart-plugin/lib/TimeSeriesChartPanel.js";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import * as echarts from "echarts";
import { useLayoutEffect, useRef, useState } from "react";
import { createRoot } from "react-dom/client";
import { colour, linesOf, spreadOf, statOf, statesOf, tableOf, unitOf } from "./panels.js";

const PAPER = { light: "#ffffff", dark: "#181b1f" };
const HEAT = { light: ["#e3eefb", "#8fbcf0", "#3b82d6", "#12386b"], dark: ["#1d2a3b", "#2a568f", "#4f95e6", "#cfe4ff"] };

function Content({ panel, range, size }) {
  const shared = { contentDimensions: size };
  switch (panel.type) {
    case "stat":
      return <StatChartPanel {...shared} {...statOf(panel, range)} />;
    case "timeseries":
      return <TimeSeriesChartPanel {...shared} {...linesOf(panel, range)} />;
    case "state-timeline":
      return <StatusHistoryPanel {...shared} {...statesOf(panel, range)} />;
    case "heatmap": {
      const timeScale = { rangeMs: (range.end - range.start) * 1000 };
      return <HeatMapChart {...size} {...spreadOf(panel, range)} timeScale={timeScale} />;
    }
    case "table":
      return <Rows {...tableOf(panel)} size={size} />;
    default:
      throw new Error(`no Perses panel for ${panel.type}`);
  }
}

function Rows({ columns, rows, size }) {
  const cellConfigs = {};
  rows.forEach((row, index) => {
    for (const { key, colourOf, textOf } of columns) {
      const textColor = colourOf?.(row[key]);
      const text = textOf?.(row[key]);
      if (textColor || text) cellConfigs[`${index}_${key}`] = { textColor, text };
    }
  });
  const shown = columns.map(({ key, heading, format, width }) => ({
    accessorKey: key,
    width,
    header: heading,
    cell: (cell) => {
      const value = cell.getValue();
      return typeof value === "number" && format ? formatValue(value, format) : (value ?? "");
    },
  }));
  return <Table data={rows} columns={shown} cellConfigs={cellConfigs} {...size} density="compact" />;
}

function Panel({ panel, range }) {
  const content = useRef(null);
  const [size, setSize] = useState();
  useLayoutEffect(() => {
    setSize({ width: content.current.clientWidth, height: content.current.clientHeight });
  }, []);
  return (
    <section className="panel" data-panel={panel.id} data-first={panel.title.startsWith("What state are the workers") || undefined} style={place(panel.gridPos)}>
      <h2>
        {panel.title}
        <small>{unitOf(panel)}</small>
      </h2>
      <div ref={content}>{size && <Content panel={panel} range={range} size={size} />}</div>
    </section>
  );
}

function place({ x, y, w, h }) {
  return { gridColumn: `${x + 1} / span ${w}`, gridRow: `${y + 1} / span ${h}` };
}

function Board({ board, range, theme }) {
  const at = new Date(range.start * 1000).toISOString().slice(0, 16).replace("T", " ");
  return (
    <div className={`board ${theme}`}>
      <div className="head">
        <h1>{board.title}</h1>
        <span>{board.description}</span>
        <span className="marks">
          {(board.annotations?.list ?? []).map((each) => (
            <span key={each.name}>
              <i style={{ background: colour(each.iconColor) }} />
              {each.name}
            </span>
          ))}
        </span>
      </div>
      <div className="grid">
        {board.panels.map((panel) =>
          panel.type === "row" ? (
            <div key={panel.id} className="row" style={place(panel.gridPos)}>
              {panel.title}
            </div>
          ) : (
            <Panel key={panel.id} panel={panel} range={range} />
          ),
        )}
      </div>
    </div>
  );
}

/** Marks the reloads, as Grafana marks annotations: a line where each begins. */
function mark(board, range) {
  const lines = (board.annotations?.list ?? []).flatMap((annotation) =>
    annotation.series.flatMap(({ values }) =>
      values
        .filter(([time], n) => n === 0 || time - values[n - 1][0] > 2 * range.step)
        .map(([time]) => ({ xAxis: time * 1000, lineStyle: { color: colour(annotation.iconColor) } })),
    ),
  );
  for (const panel of board.panels.filter((each) => each.type === "timeseries")) {
    const canvas = document.querySelector(`[data-panel="${panel.id}"] [_echarts_instance_]`);
    const chart = canvas && echarts.getInstanceByDom(canvas);
    const first = chart?.getOption().series?.[0];
    if (!first) continue;
    const markLine = { silent: true, symbol: "none", label: { show: false }, data: lines };
    markLine.lineStyle = { type: "dashed", width: 1.25, opacity: 0.9 };
    chart.setOption({ series: [{ id: first.id, name: first.name, markLine }] });
  }
}

/** One label a minute, below the chart: Perses repeats hours and minutes, and leaves no room for them under a heatmap. */
function nameMinutes(board, range) {
  for (const panel of board.panels.filter((each) => ["heatmap", "state-timeline"].includes(each.type))) {
    const canvas = document.querySelector(`[data-panel="${panel.id}"] [_echarts_instance_]`);
    if (!canvas) continue;
    const interval = (_, time) => Number(time) % 60_000 < range.step * 1000;
    echarts.getInstanceByDom(canvas).setOption({ grid: { bottom: 28 }, xAxis: { axisLabel: { interval } } });
  }
}

/** Blue from few to many, for both themes, as the dashboard wants it. */
function tint(board, theme) {
  for (const panel of board.panels.filter((each) => each.type === "heatmap")) {
    const canvas = document.querySelector(`[data-panel="${panel.id}"] [_echarts_instance_]`);
    if (canvas) echarts.getInstanceByDom(canvas).setOption({ visualMap: { inRange: { color: HEAT[theme] } } });
  }
}

async function draw() {
  const wanted = new URLSearchParams(location.search);
  const theme = wanted.get("theme") ?? "light";
  const recorded = await (await fetch("./data.json")).json();
  const board = recorded.boards[wanted.get("board")];
  const muiTheme = getTheme(theme);
  muiTheme.palette.background = { ...muiTheme.palette.background, default: PAPER[theme], paper: PAPER[theme] };
  const timeRange = { start: new Date(recorded.start * 1000), end: new Date(recorded.end * 1000) };
  createRoot(document.getElementById("root")).render(
    <ThemeProvider theme={muiTheme}>
      <QueryClientProvider client={new QueryClient()}>
        <SnackbarProvider>
          <ChartsProvider chartsTheme={generateChartsTheme(muiTheme, {})} enablePinning={false}>
            <TimeRangeProvider timeRange={timeRange} setTimeRange={() => {}}>
              <Board board={board} range={recorded} theme={theme} />
            </TimeRangeProvider>
          </ChartsProvider>
        </SnackbarProvider>
      </QueryClientProvider>
    </ThemeProvider>,
  );
  await new Promise((resolve) => setTimeout(resolve, 1500));
  mark(board, recorded);
  tint(board, theme);
  nameMinutes(board, recorded);
  await new Promise((resolve) => setTimeout(resolve, 700));
  document.title = "drawn";
}

draw().catch((error) => {
  document.title = `failed: ${error}`;
});
