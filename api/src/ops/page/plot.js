// Plots, drawn by uPlot in the page's colours. A plot's container has it as its `plot`.

import { clockTime, count, day, minuteTime, perSecond, short } from "./dom.js";
import { WINDOW } from "./series.js";

const uPlot = window.uPlot;
const HEIGHT = 150;
/** The least that a plot of what is live spans, in seconds. */
const LEAST_SPAN = 120;
const FONT = "12px system-ui, sans-serif";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
/** From nothing to somewhat more than there is. */
const fromZero = (_plot, _least, most) => [0, most > 0 ? most * 1.08 : 1];

const axes = (times) => {
  const drawn = { stroke: () => colour("--muted"), font: FONT, ticks: { show: false } };
  const grid = { stroke: () => colour("--rule"), width: 1 };
  return [
    { ...drawn, grid: { show: false }, size: 26, gap: 4, space: 70, values: (_plot, splits) => times(splits) },
    { ...drawn, grid, size: 46, gap: 4, space: 30, values: (_plot, splits) => splits.map(short) },
  ];
};

function draw(container, options, data) {
  const width = container.clientWidth || 300;
  const plot = new uPlot({ width, height: HEIGHT, cursor: { y: false, drag: { x: false } }, ...options }, data, container);
  container.plot = plot;
  const observer = new ResizeObserver(() => {
    if (container.clientWidth && container.clientWidth !== plot.width) plot.setSize({ width: container.clientWidth, height: HEIGHT });
  });
  observer.observe(container);
  return plot;
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const element of document.querySelectorAll(".uplot")) element.parentElement.plot?.redraw();
});

const asClock = (_plot, at) => (at === null ? "" : clockTime(at * 1000));
const line = (name, more) => ({ stroke: () => colour(name), width: 1.5, points: { show: false }, ...more });

/** A figure of all lines, and of the one that is chosen, as they come in. */
export class LivePlot {
  #plot;
  #container;

  constructor(container, figure) {
    this.#container = container;
    const write = figure === "rate" ? perSecond : count;
    const value = (_plot, value) => (value === null || value === undefined ? "–" : write(value));
    const span = ({ data: [times] }) => {
      const last = times.at(-1) ?? LEAST_SPAN;
      return [Math.max(Math.min(times[0] ?? 0, last - LEAST_SPAN), last - WINDOW), last];
    };
    const options = {
      scales: { x: { time: true, range: span }, y: { range: fromZero } },
      axes: axes((splits) => splits.map((at) => clockTime(at * 1000))),
      series: [
        { label: "at", value: asClock },
        line("--accent", { label: "all lines", value, fill: () => `${colour("--accent")}22` }),
        line("--second", { label: "", value, show: false }),
      ],
    };
    this.#plot = draw(container, options, [[], [], []]);
  }

  /** Draws the series; the second is of this line, if one is chosen. */
  show(times, all, one, name) {
    const isChosen = name !== null;
    const plot = this.#plot;
    if (plot.series[2].label !== (name ?? "") || plot.series[2].show !== isChosen) {
      plot.series[2].label = name ?? "";
      plot.setSeries(2, { show: isChosen });
      const label = this.#container.querySelectorAll(".u-series .u-label")[2];
      if (label) label.textContent = name ?? "";
    }
    plot.setData([times, all, one]);
    const isHovered = plot.cursor.idx !== null && plot.cursor.idx !== undefined && plot.cursor.left >= 0;
    if (!isHovered && times.length) plot.setLegend({ idx: times.length - 1 });
  }
}

/** How many asked in each minute of a sale, and how many of them succeeded. */
export function perMinute(container, minutes) {
  const at = minutes.map(({ minute }) => Date.parse(minute) / 1000);
  const label = (splits) => {
    const isLong = at.at(-1) - at[0] > 86_400;
    return splits.map((at) => (isLong ? `${day(at * 1000).slice(5)} ` : "") + minuteTime(at * 1000));
  };
  const bars = uPlot.paths.bars({ size: [0.8, 40], align: 1 });
  const value = (_plot, value) => (value === null || value === undefined ? "–" : count(value));
  const bar = (name, label, opacity) => ({
    label, value, paths: bars, points: { show: false }, width: 0, stroke: () => colour(name), fill: () => `${colour(name)}${opacity}`,
  });
  // A sale of a minute is no wall.
  const span = () => [at[0] - 60, Math.max(at.at(-1) + 120, at[0] + 600)];
  const options = {
    scales: { x: { time: true, range: span }, y: { range: fromZero } },
    axes: axes(label),
    hooks: { ready: [(plot) => plot.setLegend({ idx: at.length - 1 })] },
    series: [
      { label: "minute", value: (_plot, at) => (at === null ? "–" : minuteTime(at * 1000)) },
      bar("--accent", "asked", "66"),
      bar("--good", "succeeded", "cc"),
    ],
  };
  draw(container, options, [at, minutes.map(({ asked }) => asked), minutes.map(({ succeeded }) => succeeded)]);
}
