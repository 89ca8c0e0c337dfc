// What the lines told: the last 15 minutes, once a second while the page was open, and by what the API remembers before.

/** Seconds that are remembered. */
export const WINDOW = 15 * 60;
/** Seconds that a rate is taken over: what the API tells is up to a second old, so single seconds would jitter. */
const RATE_OVER = 3.5;
/** All lines together, by their name in the history. */
export const SUM = "";

const FIGURES = ["waiting", "rate", "age"];

/** Series of figures over one axis of times; `null` where nothing is known. */
export class History {
  times = [];
  #series = new Map();

  /** Figures by the line's name at this time, in seconds. Of lines that are not among them nothing is known then. */
  push(at, figures) {
    for (const name of figures.keys()) {
      if (!this.#series.has(name)) this.#series.set(name, this.#unknown());
    }
    this.times.push(at);
    for (const [name, series] of this.#series) {
      const told = figures.get(name);
      for (const figure of FIGURES) series[figure].push(told?.[figure] ?? null);
    }
    while (this.times[0] < at - WINDOW) this.#forget();
  }

  /** Nothing is known at this time. */
  gap(at) {
    this.push(at, new Map());
  }

  of(name, figure) {
    return (this.#series.get(name) ?? this.#unknown())[figure];
  }

  #unknown() {
    return Object.fromEntries(FIGURES.map((figure) => [figure, this.times.map(() => null)]));
  }

  #forget() {
    this.times.shift();
    for (const [name, series] of this.#series) {
      for (const figure of FIGURES) series[figure].shift();
      if (FIGURES.every((figure) => series[figure].every((value) => value === null))) this.#series.delete(name);
    }
  }
}

/** What the API remembers of the lines, as figures by the line's name at each instant, in seconds. */
export function remembered({ at, lines }) {
  const rate = ({ settledJobs: settled }, now) => {
    const isKnown = now > 0 && settled[now] !== null && settled[now - 1] !== null;
    return isKnown ? Math.max(0, (settled[now] - settled[now - 1]) / (seconds[now] - seconds[now - 1])) : null;
  };
  const seconds = at.map((at) => Date.parse(at) / 1000);
  return seconds.map((second, now) => {
    const known = lines.filter((line) => line.waitingJobs[now] !== null);
    const figures = known.map((line) => [line.queue, { waiting: line.waitingJobs[now], rate: rate(line, now), age: line.oldestSeconds[now] }]);
    if (figures.length) {
      const add = (figure) => figures.reduce((sum, [, line]) => sum + line[figure], 0);
      const isRated = figures.some(([, line]) => line.rate !== null);
      figures.push([SUM, { waiting: add("waiting"), rate: isRated ? add("rate") : null, age: Math.max(...figures.map(([, line]) => line.age)) }]);
    }
    return [second, new Map(figures)];
  });
}

/** Counts what is settled, by the counters of the lines: since the first of them was read, and per second. */
export class Settled {
  #first = new Map();
  #last = new Map();
  #recent = [];

  /** Whether no counter was read yet. */
  isNew() {
    return this.#last.size === 0;
  }

  /** Counters by the line's name at this time, in seconds. */
  read(at, counters) {
    const isFirst = this.isNew();
    for (const [name, counter] of counters) {
      // A line that was not there before was opened since, at 0.
      if (!this.#first.has(name)) this.#first.set(name, isFirst ? counter : 0);
      this.#last.set(name, counter);
    }
    this.#recent.push([at, new Map(this.#last)]);
    while (this.#recent[0][0] < at - RATE_OVER) this.#recent.shift();
  }

  /** Settled since the first time, in one line or in all of them, those that are gone included. */
  total(name = SUM) {
    const names = name === SUM ? [...this.#last.keys()] : [name];
    return names.reduce((sum, name) => sum + (this.#last.get(name) ?? 0) - (this.#first.get(name) ?? 0), 0);
  }

  /** Per second of late, in one line or in all of them; `null` if that is not known yet. */
  rate(name = SUM) {
    const [from, to] = [this.#recent[0], this.#recent.at(-1)];
    if (!from || from === to) return null;
    const names = name === SUM ? [...to[1].keys()] : [name];
    const more = names.reduce((sum, name) => sum + (to[1].get(name) ?? 0) - (from[1].get(name) ?? 0), 0);
    return Math.max(0, more / (to[0] - from[0]));
  }
}
