// One container: the lines of its gauges over the last minutes, and its log as it is written.

const SAMPLES_MAX = 120;

/** Adds each gauge's newest sample to its line; the samples outlive a change of tab. */
function sample() {
  const board = document.querySelector("#gauges[data-container]");
  if (!board) return;
  const store = `berth-samples-${board.dataset.container}`;
  let all = {};
  try {
    all = JSON.parse(sessionStorage.getItem(store) || "{}");
  } catch {
    all = {};
  }
  const now = Date.now();
  for (const gauge of board.querySelectorAll("[data-sample]")) {
    const key = gauge.dataset.gauge;
    const line = (all[key] || []).filter(([at]) => now - at < 300000);
    line.push([now, Number(gauge.dataset.sample)]);
    all[key] = line.slice(-SAMPLES_MAX);
    draw(gauge.querySelector("[data-spark]"), all[key], now);
  }
  try {
    sessionStorage.setItem(store, JSON.stringify(all));
  } catch {
    sessionStorage.clear();
  }
}

function draw(spark, line, now) {
  if (!spark) return;
  const span = Math.max(60000, now - line[0][0]);
  const points = line.map(([at, value]) => `${(120 - ((now - at) * 120) / span).toFixed(1)} ${(31 - value * 0.3).toFixed(1)}`);
  if (points.length === 1) points.unshift(`119 ${points[0].split(" ")[1]}`);
  const path = `M${points.join("L")}`;
  spark.querySelector(".line").setAttribute("d", path);
  spark.querySelector(".area").setAttribute("d", `${path}V32H${points[0].split(" ")[0]}Z`);
}

document.addEventListener("berth:updated", sample);
sample();

const log = document.getElementById("log");
if (log) followLog(log);

function followLog(box) {
  const state = document.querySelector("[data-log-state]");
  const follow = document.querySelector("[data-log-follow]");
  const find = document.querySelector("[data-log-find]");
  const atEnd = () => box.scrollHeight - box.scrollTop - box.clientHeight < 40;
  const toEnd = () => {
    box.scrollTop = box.scrollHeight;
  };
  toEnd();
  const toggle = (name, value) => {
    const control = document.querySelector(name);
    if (control) control.addEventListener("change", () => box.classList.toggle(value, control.checked));
  };
  toggle("[data-log-times]", "times");
  toggle("[data-log-wrap]", "wrap");

  const fits = (line) => !find.value || line.textContent.toLowerCase().includes(find.value.toLowerCase());
  find.addEventListener("input", () => {
    let count = 0;
    for (const line of box.querySelectorAll(".line")) {
      const shown = fits(line);
      line.classList.toggle("hidden", !shown);
      if (shown) count += 1;
    }
    state.textContent = find.value ? `${count} lines` : "";
  });

  if (!follow || !box.dataset.follow) return;
  let source = null;
  let address = box.dataset.follow;
  let waiting = [];
  const open = () => {
    if (source || !follow.checked || document.hidden) return;
    source = new EventSource(address);
    source.addEventListener("open", () => {
      state.textContent = "following";
    });
    source.addEventListener("error", () => {
      state.textContent = "connection lost, trying again";
    });
    source.addEventListener("end", () => {
      close();
      state.textContent = "it has ended";
    });
    for (const kind of ["stdout", "stderr"]) source.addEventListener(kind, take);
    source.addEventListener("gap", gap);
  };
  const gap = () => {
    const words = document.createElement("p");
    words.className = "line gap";
    words.textContent = "Older lines were dropped before they could be read.";
    box.append(words);
  };
  const close = () => {
    if (source) source.close();
    source = null;
  };
  const take = (event) => {
    if (event.lastEventId) address = withCursor(address, event.lastEventId);
    let record;
    try {
      record = JSON.parse(event.data);
      record.stream = event.type;
    } catch {
      return;
    }
    waiting.push(record);
    if (waiting.length === 1) requestAnimationFrame(flush);
  };
  const flush = () => {
    const stay = atEnd();
    const records = waiting.slice(-2000);
    waiting = [];
    const lines = document.createDocumentFragment();
    for (const record of records) lines.append(lineOf(record));
    const empty = box.querySelector(".log-empty");
    if (empty) empty.remove();
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
