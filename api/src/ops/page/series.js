// What the lines told while the page was open: the last 15 minutes, once a second.

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
