// Error against model calls: a chart by plotly, and a table of its curves that is its legend too.
(() => {
  const form = document.getElementById("curve-filters");
  const chart = document.getElementById("chart");
  const table = document.getElementById("curve-table");
  const note = document.getElementById("point");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 40rem)");
  const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "x", "cross", "pentagon", "star", "hexagon"];
  const DASHES = ["solid", "dash", "dot", "dashdot", "longdash"];
  const hidden = new Map();
  let curves = [];
  let ready = false;

  if (!data.curves.length) {
    for (const part of [form, chart, table, note]) part.remove();
    document.getElementById("work-about").textContent = "This run measured no errors at given numbers of calls.";
    return;
  }
  // Steps of a solver's own belong to every grid.
  const spots = data.curves.filter((c) => c.grid !== data.own_steps);
  fill(form.elements.target, (spots.length ? spots : data.curves).map((c) => c.spot));
  fill(form.elements.kind, data.curves.map((c) => c.kind));
  fill(form.elements.family, Object.values(data.solvers).map((s) => s.family).sort(), "all");
  form.elements.target.selectedIndex = form.elements.target.options.length - 1;
  if (!data.curves.some((c) => c.seconds.length)) form.elements.against.closest("label").remove();

  function colour(declared) {
    const name = [1, 2, 3, 4, 5].includes(declared) ? declared : "x";
    return getComputedStyle(document.documentElement).getPropertyValue(`--order-${name}`).trim();
  }

  function style(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function here(curve) {
    const spot = form.elements.target.value;
    const same = (c) => c.spot === spot && c.target === curve.target && c.process === curve.process;
    return curve.spot === spot || (curve.grid === data.own_steps && spots.some(same));
  }

  function chosen() {
    const wanted = form.elements;
    const text = wanted.solver.value.trim().toLowerCase();
    return data.curves.filter(
      (c) =>
        here(c) &&
        (!text || c.solvers.some((s) => s.toLowerCase().includes(text))) &&
        c.kind === wanted.kind.value &&
        (!wanted.family.value || c.solvers.some((s) => family(s) === wanted.family.value)),
    );
  }

  function visible(curve) {
    if (hidden.has(curve)) return !hidden.get(curve);
    const show = form.elements.show.value;
    if (show === "ours") return curve.solvers.some((s) => !data.solvers[s].package);
    if (show === "others") return curve.solvers.some((s) => data.solvers[s].package);
    return show === "all" || (show === "defaults" && curve.solvers.some((s) => !data.solvers[s].variant));
  }

  function place(curve, calls) {
    // The point with the most calls that stay within the number, or -1.
    return curve.calls.findLastIndex((n) => n <= calls);
  }

  function at(curve, calls) {
    const i = place(curve, calls);
    return i < 0 ? null : curve.errors[i];
  }

  function between(curve, i) {
    // The interval over starts; none of exact laws, nor of a single start.
    const known = i >= 0 && curve.low.length && curve.low[i] !== null;
    return known ? `${exponent(curve.low[i])} to ${exponent(curve.high[i])}` : "";
  }

  function marked(found) {
    const seen = new Map();
    return found.map((curve) => {
      const place = seen.get(curve.declared) || 0;
      seen.set(curve.declared, place + 1);
      return { curve, symbol: SYMBOLS[place % SYMBOLS.length], dash: DASHES[Math.floor(place / SYMBOLS.length) % DASHES.length] };
    });
  }

  function plain(text) {
    return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  }

  function timed() {
    return form.elements.against && form.elements.against.value === "seconds";
  }

  function traces(strong) {
    const lines = curves.map(({ curve, symbol, dash }) => ({
      type: "scatter",
      mode: "lines+markers",
      x: timed() ? curve.seconds : curve.calls,
      y: curve.errors,
      text: curve.errors.map((_, i) => (between(curve, i) ? `, 95 % ${between(curve, i)}` : "")),
      name: plain(curve.solvers[0]),
      meta: curve,
      visible: visible(curve),
      opacity: !strong || strong === curve ? 1 : 0.15,
      line: { color: colour(curve.declared), width: strong === curve ? 2.5 : 1.4, dash },
      marker: { symbol, size: 6, color: colour(curve.declared) },
      hovertemplate: `${curve.solvers.map(plain).join(" = ")}<br>%{x} ${timed() ? "s" : "calls"}, error %{y:.2e}%{text}<extra></extra>`,
    }));
    if (strong && strong.low.length && visible(strong)) lines.push(band(strong));
    if (strong && strong.fit.length && !timed() && visible(strong)) lines.push(fitted(strong));
    return lines;
  }

  function band(curve) {
    // Of one curve at a time: those of all would hide each other.
    const x = timed() ? curve.seconds : curve.calls;
    const known = x.map((_, i) => i).filter((i) => curve.low[i] > 0 && x[i] > 0);
    const back = [...known].reverse();
    return {
      type: "scatter",
      mode: "lines",
      x: [...known, ...back].map((i) => x[i]),
      y: [...known.map((i) => curve.high[i]), ...back.map((i) => curve.low[i])],
      fill: "toself",
      fillcolor: colour(curve.declared),
      opacity: 0.22,
      line: { width: 0 },
      hoverinfo: "skip",
    };
  }

  function fitted(curve) {
    const [p, c, first, last] = curve.fit;
    const x = [first / 1.3, last * 1.3];
    return {
      type: "scatter",
      mode: "lines",
      x,
      y: x.map((n) => c * n ** -p),
      line: { color: style("--text"), width: 1, dash: "dot" },
      hoverinfo: "skip",
    };
  }

  function layout() {
    const ticks = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000];
    const axis = { type: "log", color: style("--dim"), gridcolor: style("--line"), linecolor: style("--line"), zeroline: false, tickfont: { size: 12 } };
    return {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: style("--text") },
      margin: narrow.matches ? { l: 42, r: 6, t: 30, b: 40 } : { l: 48, r: 12, t: 30, b: 46 },
      showlegend: false,
      hovermode: "closest",
      dragmode: false,
      hoverlabel: { bgcolor: style("--page"), bordercolor: style("--line"), font: { color: style("--text") } },
      xaxis: timed()
        ? { ...axis, title: { text: "processor seconds", font: { size: 13 } }, exponentformat: "power", dtick: 1, fixedrange: true }
        : { ...axis, title: { text: "model calls", font: { size: 13 } }, tickvals: ticks, fixedrange: true },
      annotations: [
        { text: "relative error", xref: "paper", yref: "paper", x: 0, y: 1, xanchor: "left", yanchor: "bottom", showarrow: false },
      ],
      yaxis: { ...axis, tickfont: { size: 10 }, exponentformat: "power", dtick: 1, fixedrange: true },
    };
  }

  function paint(strong) {
    if (ready) window.Plotly.react(chart, traces(strong), layout(), { displayModeBar: false, responsive: true });
  }

  function swatch({ curve, symbol, dash }) {
    const lengths = { solid: "", dash: "6 3", dot: "2 2", dashdot: "6 2 2 2", longdash: "10 3" };
    const shapes = {
      circle: "M12 8a4 4 0 1 0 8 0a4 4 0 1 0-8 0", square: "M12.5 4.5h7v7h-7z", diamond: "M16 3l5 5-5 5-5-5z",
      "triangle-up": "M16 3l5 9H11z", "triangle-down": "M16 13l5-9H11z", x: "M13 3l3 3 3-3 2 2-3 3 3 3-2 2-3-3-3 3-2-2 3-3-3-3z",
      cross: "M14.5 3h3v3.500h3.500v3h-3.500v3.500h-3v-3.500h-3.500v-3h3.500z", pentagon: "M16 3l5 3.600-2 6h-6l-2-6z",
      star: "M16 2.500l1.600 3.800 4.100.3-3.100 2.700 1 4-3.600-2.200-3.600 2.200 1-4-3.100-2.700 4.100-.3z", hexagon: "M16 3l4.500 2.500v5L16 13l-4.500-2.500v-5z",
    };
    const ink = colour(curve.declared);
    return draw(
      "svg",
      { class: "swatch", viewBox: "0 0 32 16", "aria-hidden": "true" },
      draw("line", { x1: 0, x2: 32, y1: 8, y2: 8, stroke: ink, "stroke-width": 1.8, "stroke-dasharray": lengths[dash] }),
      draw("path", { d: shapes[symbol], fill: ink }),
    );
  }

  function number(curve, calls, i) {
    const interval = between(curve, place(curve, calls));
    const title = interval ? { title: `95 %: ${interval}` } : {};
    return make("td", { class: i === 1 ? "number" : "number roomy", ...title }, exponent(at(curve, calls)));
  }

  function row(mark) {
    const { curve } = mark;
    const box = make("input", { type: "checkbox" });
    box.checked = visible(curve);
    box.addEventListener("change", () => {
      hidden.set(curve, !box.checked);
      paint(null);
    });
    const names = make("span", { class: "name" }, ...breakable(curve.solvers.join(" = ")));
    const ask = make("button", { type: "button", class: "ask" }, "command");
    ask.addEventListener("click", () => tell(curve, null));
    const line = make(
      "tr",
      { "data-solver": curve.solvers[0] },
      make("th", { scope: "row" }, make("label", {}, box, swatch(mark), names)),
      make("td", { class: "number roomy" }, curve.declared === null ? "–" : `${curve.declared}`),
      make("td", { class: "number" }, curve.fit.length ? fixed(curve.fit[0]) : "–"),
      ...data.calls.map((n, i) => number(curve, n, i)),
      make("td", { class: "roomy" }, ask),
    );
    for (const event of ["mouseenter", "focusin"]) line.addEventListener(event, () => paint(curve));
    for (const event of ["mouseleave", "focusout"]) line.addEventListener(event, () => paint(null));
    return line;
  }

  function tell(curve, point) {
    const interval = point ? between(curve, point.pointNumber) : "";
    const sure = interval ? `, 95 % ${interval} over ${drawn(curve)}` : "";
    const what = point ? `${point.x} ${timed() ? "s" : "calls"}, error ${exponent(point.y)}${sure}: ` : "";
    note.replaceChildren(`${curve.solvers[0]}, ${what}`, make("code", {}, command(curve.solvers[0], curve)));
  }

  function drawn(curve) {
    return curve.kind === "strong" ? "paths" : "starts";
  }

  function certainty(found) {
    if (found.some((c) => c.kind === "weak")) return "These errors are of exact laws: they have no band.";
    if (!found.some((c) => c.low.length)) return "";
    return (
      `A chosen curve, or one whose row is under the pointer, shows the 95 % interval of its errors over ${drawn(found[0])}; ` +
      `between two curves on the same ${drawn(found[0])} less is enough.`
    );
  }

  function render() {
    const found = chosen().sort((a, b) => (at(a, data.calls[1]) ?? Infinity) - (at(b, data.calls[1]) ?? Infinity));
    const byName = marked([...found].sort((a, b) => a.declared - b.declared || a.solvers[0].localeCompare(b.solvers[0])));
    curves = byName;
    const first = found.find((c) => c.grid !== data.own_steps) || found[0];
    document.getElementById("work-about").textContent = first
      ? `${first.target}, process ${first.process}, grid ${first.grid}; ${data.titles[first.kind] || first.kind}. ` +
        "Colours stand for declared orders. The slope is fitted to the last half of a curve above rounding errors. " +
        "Methods that are the same share a curve. " +
        certainty(found) +
        (data.skipped.length ? ` Not measured: ${data.skipped.join("; ")}` : "")
      : "No curve fits these choices.";
    const heads = ["Solver", "Declared", "Slope", ...data.calls.map((n) => `Error at ${n}`), ""];
    const classes = ["", "number roomy", "number", ...data.calls.map((_, i) => (i === 1 ? "number" : "number roomy")), "roomy"];
    table.tHead.replaceChildren(make("tr", {}, ...heads.map((text, i) => make("th", { scope: "col", class: classes[i] }, text))));
    table.tBodies[0].replaceChildren(...found.map((curve) => row(byName.find((m) => m.curve === curve))));
    paint(null);
  }

  form.addEventListener("change", (event) => {
    if (event.target.name === "show") hidden.clear();
    render();
  });
  form.elements.solver.addEventListener("input", render);
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const media of [dark, narrow]) media.addEventListener("change", render);
  render();

  async function load() {
    const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = make("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
    ready = true;
    await window.Plotly.newPlot(chart, traces(null), layout(), { displayModeBar: false, responsive: true });
    chart.on("plotly_click", (event) => {
      const point = event.points[0];
      if (!point.data.meta) return;
      tell(point.data.meta, point);
      paint(point.data.meta);
    });
    document.body.dataset.charts = "ready";
  }
  load().catch((error) => {
    chart.style.height = "auto";
    chart.textContent = `The chart could not be drawn: ${error.message}. The table below has its numbers.`;
  });
})();
