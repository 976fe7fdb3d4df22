// One container: reading its charts by pointer and keys, and its log as it is written.

const chartAt = { key: null, secs: 0 };

/** `words=10:5 20:6|other=…` as lines of [seconds, value]. */
function chartLines(text) {
  return text.split("|").filter(Boolean).map((line) => {
    const [name, list] = [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)];
    return [name, pairsOf(list)];
  });
}

function pairsOf(list) {
  return list.split(" ").filter(Boolean).map((pair) => pair.split(":").map(Number));
}

function chartWords(unit, value) {
  if (unit === "cores") return `${(value / 1000).toFixed(2)} cores`;
  if (unit === "count") return String(value);
  let power = 0;
  while (value >= 1024 && power < 5) {
    value /= 1024;
    power += 1;
  }
  const words = `${value >= 100 || Number.isInteger(value) ? Math.round(value) : value.toFixed(1)} ${["B", "KiB", "MiB", "GiB", "TiB", "PiB"][power]}`;
  return unit === "rate" ? `${words}/s` : words;
}

/** Shows in every chart what was so at the chosen moment; without one, what is so now. */
function readCharts() {
  for (const chart of document.querySelectorAll("[data-chart]")) {
    const out = chart.querySelector("[data-readout]");
    const cursor = chart.querySelector(".cursor");
    if (chartAt.key === null) {
      cursor.setAttribute("visibility", "hidden");
      if (chart.readoutNow) out.textContent = chart.readoutNow;
      chart.readoutNow = null;
      continue;
    }
    if (!chart.readoutNow) chart.readoutNow = out.textContent;
    const { since, until, values, limits, chart: unit } = chart.dataset;
    const share = Math.min(1, Math.max(0, (chartAt.secs * 1000) / (until - since)));
    cursor.setAttribute("visibility", "visible");
    for (const end of ["x1", "x2"]) cursor.setAttribute(end, `${(share * 100).toFixed(2)}%`);
    const time = new Date(Number(since) + chartAt.secs * 1000).toLocaleTimeString();
    const parts = chartLines(values).map(([name, points]) => {
      const near = nearest(points, chartAt.secs);
      return near === null ? null : `${name ? `${name} ` : ""}${chartWords(unit, near)}`;
    });
    const said = parts.filter(Boolean).join(", ") || "did not run, or the server did not";
    const held = pairsOf(limits).filter(([from]) => from <= chartAt.secs).pop();
    out.textContent = `${time}: ${said}${held && parts.some(Boolean) ? ` of ${chartWords(unit, held[1])}` : ""}`;
  }
}

function nearest(points, secs) {
  let best = null;
  for (const [at, value] of points) {
    if (Math.abs(at - secs) <= 15 && (best === null || Math.abs(at - secs) < best[0])) best = [Math.abs(at - secs), value];
  }
  return best && best[1];
}

function chartMoment(chart, secs) {
  chartAt.key = chart.id;
  chartAt.secs = Math.min((chart.dataset.until - chart.dataset.since) / 1000, Math.max(0, secs));
  readCharts();
}

document.addEventListener("pointermove", (event) => {
  const plot = event.target.closest && event.target.closest(".plot");
  if (!plot) {
    if (chartAt.key !== null && !document.activeElement.matches(".plot")) {
      chartAt.key = null;
      readCharts();
    }
    return;
  }
  const chart = plot.closest("[data-chart]");
  const box = plot.getBoundingClientRect();
  const span = (chart.dataset.until - chart.dataset.since) / 1000;
  chartMoment(chart, ((event.clientX - box.left) / box.width) * span);
});

document.addEventListener("keydown", (event) => {
  const plot = event.target.closest && event.target.closest(".plot");
  if (!plot || event.ctrlKey || event.metaKey || event.altKey) return;
  const chart = plot.closest("[data-chart]");
  const last = (chart.dataset.until - chart.dataset.since) / 1000;
  const step = event.shiftKey ? 300 : 10;
  const from = chartAt.key === null ? last : chartAt.secs;
  const moves = { ArrowLeft: from - step, ArrowRight: from + step, Home: 0, End: last };
  if (event.key in moves) {
    event.preventDefault();
    chart.querySelector("[data-readout]").setAttribute("aria-live", "polite");
    chartMoment(chart, moves[event.key]);
  } else if (event.key === "Escape") {
    chartAt.key = null;
    readCharts();
  }
});

document.addEventListener("focusout", (event) => {
  if (!event.target.matches(".plot")) return;
  chartAt.key = null;
  readCharts();
});

document.addEventListener("berth:updated", () => {
  if (chartAt.key === null) return;
  for (const chart of document.querySelectorAll("[data-chart]")) chart.readoutNow = null;
  readCharts();
});

const log = document.getElementById("log");
if (log) followLog(log);

function followLog(box) {
  const state = document.querySelector("[data-log-state]");
  const follow = document.querySelector("[data-log-follow]");
  const find = document.querySelector("[data-log-find]");
  const running = () => document.getElementById("log-live").dataset.running === "true";
  const atEnd = () => box.scrollHeight - box.scrollTop - box.clientHeight < 40;
  const toEnd = () => {
    box.scrollTop = box.scrollHeight;
  };
  toEnd();
  const toggle = (name, value) => {
    const control = document.querySelector(name);
    control.addEventListener("change", () => box.classList.toggle(value, control.checked));
  };
  toggle("[data-log-times]", "times");
  toggle("[data-log-wrap]", "wrap");

  // While somebody types, the lines at hand are narrowed; the server looks through all when sent.
  const fits = (line) => !find.value || line.textContent.toLowerCase().includes(find.value.toLowerCase());
  find.addEventListener("input", () => {
    let count = 0;
    for (const line of box.querySelectorAll(".line")) {
      const shown = fits(line);
      line.classList.toggle("hidden", !shown);
      if (shown) count += 1;
    }
    state.textContent = find.value ? `${count} of the lines shown here; press Enter to look through the log` : "";
  });

  let source = null;
  let timer = 0;
  let pause = 500;
  let lostAt = null;
  let ended = !running();
  let address = box.dataset.follow;
  let waiting = [];
  const open = () => {
    clearTimeout(timer);
    if (source || ended || !follow.checked || document.hidden) return;
    source = new EventSource(address);
    source.addEventListener("open", () => {
      state.textContent = lostAt ? `following again; lost from ${lostAt} on, no line is missing` : "following";
      lostAt = null;
      pause = 500;
    });
    // The browser would come back by itself only from some errors, and with the first address.
    source.addEventListener("error", () => {
      close();
      lostAt = lostAt || new Date().toLocaleTimeString();
      state.textContent = `connection lost at ${lostAt}; trying again`;
      timer = setTimeout(open, pause);
      pause = Math.min(10000, pause * 2);
    });
    source.addEventListener("end", () => {
      close();
      ended = true;
      state.textContent = "it has ended";
    });
    for (const kind of ["stdout", "stderr"]) source.addEventListener(kind, take);
    source.addEventListener("gap", () => note("Older lines were dropped before they could be read."));
  };
  const close = () => {
    if (source) source.close();
    source = null;
  };
  const note = (words) => {
    const line = document.createElement("p");
    line.className = "line gap";
    line.textContent = words;
    box.append(line);
  };
  const take = (event) => {
    // Whatever is lost from here on is asked for again from this place.
    if (event.lastEventId) address = withCursor(address, event.lastEventId);
    let record;
    try {
      record = JSON.parse(event.data);
      record.stream = event.type;
    } catch {
      return;
    }
    waiting.push(record);
    if (waiting.length === 1) setTimeout(flush, 50);
  };
  // A line that goes on in the next record of its stream is one line here, too.
  const unfinished = { stdout: null, stderr: null };
  const flush = () => {
    const stay = atEnd();
    const skipped = Math.max(0, waiting.length - 2000);
    const records = waiting.slice(skipped);
    waiting = [];
    const empty = box.querySelector(".log-empty");
    if (empty) empty.remove();
    if (skipped) note(`${skipped} lines came too fast to be shown; the download has them.`);
    const lines = document.createDocumentFragment();
    for (const record of records) {
      const begun = unfinished[record.stream];
      if (begun) begun.querySelector(".text").append(visible(record.text || ""));
      const line = begun || lineOf(record);
      if (!begun) lines.append(line);
      unfinished[record.stream] = record.partial ? line : null;
    }
    box.append(lines);
    while (box.childElementCount > 6000) box.firstElementChild.remove();
    if (stay) toEnd();
  };
  const lineOf = (record) => {
    const line = document.createElement("div");
    line.className = record.stream === "stderr" ? "line err" : "line";
    const time = document.createElement("time");
    time.title = record.time || "";
    time.textContent = (record.time || "").slice(11, 23);
    const text = document.createElement("span");
    text.className = "text";
    text.textContent = visible(record.text || "");
    line.append(time, text);
    if (!fits(line)) line.classList.add("hidden");
    return line;
  };
  follow.addEventListener("change", () => {
    if (follow.checked) open();
    else {
      close();
      state.textContent = "";
    }
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) close();
    else open();
  });
  // Started again: there is something to follow again.
  document.addEventListener("berth:updated", () => {
    if (ended && running()) {
      ended = false;
      open();
    }
  });
  addEventListener("pagehide", close);
  open();
}

function withCursor(address, cursor) {
  const there = new URL(address, location.href);
  there.searchParams.delete("tail");
  there.searchParams.set("from", cursor);
  return there.href;
}

/** Control characters drawn instead of obeyed; colour sequences of terminals are left out. */
function visible(text) {
  return text
    .replace(/\u001b\[[0-9;:]*m/g, "")
    .replace(/[\u0000-\u0008\u000b-\u001f\u007f]/g, (c) => (c === "\u007f" ? "\u2421" : String.fromCharCode(0x2400 + c.charCodeAt(0))))
    .replace(/[\u0080-\u009f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
}
