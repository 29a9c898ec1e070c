// Charts of samples by uPlot. What a chart shows stands below it in words too: the latest figure and the largest.
const REFRESH_MS = 300000;

function colour(node, tone) {
  const probe = document.createElement("i");
  probe.className = `chart__tone chart__tone--${tone}`;
  node.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

class Chart {
  constructor(node) {
    this.node = node;
    this.plot = null;
    this.data = null;
    this.place = node.querySelector("[data-chart-plot]");
    this.legend = node.querySelector("[data-chart-legend]");
    this.span = node.querySelector("[data-chart-span]");
    this.span.addEventListener("change", () => this.ask());
    new ResizeObserver(() => this.plot?.setSize(this.size())).observe(this.place);
  }

  size() {
    return { width: this.place.clientWidth, height: 220 };
  }

  async ask() {
    const query = new URLSearchParams({ span: this.span.value, hypervisor: this.node.dataset.hypervisor });
    try {
      const answer = await fetch(`${this.node.dataset.chart}?${query}`, { headers: { Accept: "application/json" } });
      if (!answer.ok) return;
      this.data = await answer.json();
    } catch {
      return; // the next turn asks again
    }
    this.draw();
  }

  draw() {
    if (!this.data) return;
    this.plot?.destroy();
    this.plot = null;
    const { times, lines, unit } = this.data;
    this.tell(lines, unit, times.length);
    if (!times.length) return;
    const ink = colour(this.node, "ink");
    const grid = { stroke: colour(this.node, "line"), width: 1 };
    const axis = { stroke: ink, grid, ticks: grid, font: "12px Inter, system-ui, sans-serif" };
    const series = lines.map((line) => ({ label: line.name, stroke: colour(this.node, line.tone), width: 2, spanGaps: false }));
    const most = (low, high) => (unit ? [0, Math.max(100, Math.ceil(high / 10) * 10)] : [0, Math.max(4, Math.ceil(high * 1.1))]);
    const options = {
      ...this.size(),
      legend: { show: false },
      cursor: { y: false },
      scales: { y: { range: (_, low, high) => most(low, high) } },
      series: [{}, ...series],
      axes: [{ ...axis, values: (_, ticks) => this.moments(ticks) }, { ...axis, size: 52, values: (_, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? `${tick}${unit && ` ${unit}`}` : "")) }],
      hooks: { setCursor: [(plot) => this.tell(lines, unit, times.length, plot.cursor.idx)] },
    };
    this.plot = new uPlot(options, [times, ...lines.map((line) => line.values)], this.place);
  }

  // In the words of the page's language; the day where it is a new one.
  moments(ticks) {
    const language = document.documentElement.lang || undefined;
    const clock = new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
    const calendar = new Intl.DateTimeFormat(language, { day: "numeric", month: "short" });
    let before = "";
    return ticks.map((tick) => {
      const moment = new Date(tick * 1000);
      const day = calendar.format(moment);
      const time = clock.format(moment);
      const words = day === before ? time : time === "00:00" ? day : `${time}\n${day}`;
      before = day;
      return words;
    });
  }

  tell(lines, unit, count, index) {
    const { wordsNone, wordsNow, wordsMost } = this.node.dataset;
    const item = (text, tone) => {
      const entry = document.createElement("li");
      if (tone) {
        const mark = document.createElement("i");
        mark.className = `chart__tone chart__tone--${tone}`;
        entry.append(mark);
      }
      entry.append(text);
      return entry;
    };
    if (!count) return this.legend.replaceChildren(item(wordsNone));
    const at = index ?? count - 1;
    const shown = (value) => (value === null || value === undefined ? "–" : `${value}${unit && ` ${unit}`}`);
    this.legend.replaceChildren(
      ...lines.map((line) => {
        const known = line.values.filter((value) => value !== null);
        const most = known.length ? Math.max(...known) : null;
        const when = index === undefined || index === null ? `${wordsNow} ` : "";
        return item(`${line.name}: ${when}${shown(line.values[at])}, ${wordsMost} ${shown(most)}`, line.tone);
      }),
    );
  }
}

export function startCharts() {
  const charts = [...document.querySelectorAll("[data-chart]")].map((node) => new Chart(node));
  if (!charts.length || !window.uPlot) return;
  charts.forEach((chart) => chart.ask());
  setInterval(() => document.hidden || charts.forEach((chart) => chart.ask()), REFRESH_MS);
  const redraw = () => charts.forEach((chart) => chart.draw());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  new MutationObserver(redraw).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
}
