// A container's terminal: xterm.js draws it, the API's WebSocket carries it. What was missed while the
// connection was away is asked for by the number of bytes that have come.

const panel = document.querySelector("[data-terminal]");
const api = panel.dataset.terminal;
const container = panel.dataset.container;
const nonce = document.querySelector("[data-terminal-script]").nonce;
const find = (name) => panel.querySelector(`[data-terminal-${name}]`);

// Bytes that are taken before the server is told so; it sends 128 KiB ahead at most.
const TOLD_BYTES = 32 << 10;
const INPUT_BYTES = 16 << 10;
const AWAY_MS_MAX = 60000;
const RETRY_MS = [250, 1000, 2000, 4000];
// What reaches out of a terminal: titles, links, colours of the page, notices, clipboards, files.
const SWALLOWED = [0, 1, 2, 7, 8, 9, 10, 11, 12, 52, 104, 110, 111, 112, 133, 633, 777, 1337];

let terminal = null;
let fit = null;
let socket = null;
let session = null;
let received = 0;
let told = 0;
let tries = 0;
let lostAt = 0;

function say(text) {
  find("state").textContent = text;
}

/** The page's policy knows the terminal's own style sheets by their nonce, and takes no style attribute. */
function allowStyles() {
  const create = document.createElement;
  document.createElement = function (name, ...more) {
    const element = create.call(document, name, ...more);
    if (String(name).toLowerCase() === "style") element.nonce = nonce;
    return element;
  };
  const set = HTMLElement.prototype.setAttribute;
  HTMLElement.prototype.setAttribute = function (name, value) {
    if (name === "style") this.style.cssText = value;
    else set.call(this, name, value);
  };
}

async function ready() {
  if (terminal) return;
  allowStyles();
  const [{ Terminal }, { FitAddon }] = await Promise.all([import(panel.dataset.xterm), import(panel.dataset.fit)]);
  const font = getComputedStyle(document.documentElement).getPropertyValue("--mono");
  terminal = new Terminal({
    fontFamily: font,
    fontSize: 13,
    scrollback: 5000,
    theme: { background: "#0b1015", foreground: "#e6ebf1", cursor: "#62adff", selectionBackground: "#2b4a6b" },
  });
  for (const code of SWALLOWED) terminal.parser.registerOscHandler(code, () => true);
  fit = new FitAddon();
  terminal.loadAddon(fit);
  terminal.open(find("screen"));
  terminal.attachCustomKeyEventHandler(key);
  terminal.onData((text) => send(new TextEncoder().encode(text)));
  terminal.onBinary((text) => send(Uint8Array.from(text, (letter) => letter.charCodeAt(0))));
  terminal.onResize(size);
  fit.fit();
  new ResizeObserver(() => fit.fit()).observe(find("screen"));
}

/** What is not for the program. */
function key(event) {
  if (event.key === "F6") {
    if (event.type === "keydown") find("open").elements.program.focus();
    return false;
  }
  if (event.ctrlKey && event.shiftKey && event.code === "KeyC") {
    if (event.type === "keydown") copy();
    event.preventDefault();
    return false;
  }
  // The browser's own paste comes as an event of its own.
  return !(event.ctrlKey && event.shiftKey && event.code === "KeyV");
}

async function copy() {
  const text = terminal ? terminal.getSelection() : "";
  if (!text) {
    say("Nothing is marked.");
    return;
  }
  try {
    await navigator.clipboard.writeText(text);
    say("Copied.");
  } catch {
    say("The browser did not let it be copied.");
  }
}

function isOpen() {
  return socket !== null && socket.readyState === WebSocket.OPEN;
}

function send(bytes) {
  for (let at = 0; isOpen() && at < bytes.length; at += INPUT_BYTES) socket.send(bytes.subarray(at, at + INPUT_BYTES));
}

function order(what) {
  if (isOpen()) socket.send(JSON.stringify(what));
}

function size() {
  const within = (cells) => Math.min(1000, Math.max(1, cells));
  order({ resize: { columns: within(terminal.cols), rows: within(terminal.rows) } });
}

async function open(form) {
  await ready();
  const command = form.elements.program.value.split(" ").filter(Boolean);
  const program = { command };
  if (form.elements.user.value) program.user = form.elements.user.value;
  const body = JSON.stringify({ program, terminal: { columns: terminal.cols, rows: terminal.rows } });
  say("Opening …");
  try {
    const answer = await fetch(api, { method: "POST", headers: { "Content-Type": "application/json" }, body });
    const said = await answer.json();
    if (answer.ok) attach(said.id);
    else say(said.detail);
  } catch {
    say("The server did not answer.");
  }
}

function attach(number) {
  session = number;
  received = 0;
  lostAt = 0;
  tries = 0;
  terminal.reset();
  connect();
  terminal.focus();
}

/** Where the session is; the container's first program has no number. */
function place() {
  return session === null ? container : `${api}/${session}`;
}

function connect() {
  const url = new URL(`${place()}/attach?from=${received}`, location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  if (socket) socket.close();
  const mine = new WebSocket(url);
  let ended = false;
  socket = mine;
  mine.binaryType = "arraybuffer";
  mine.addEventListener("open", () => {
    lostAt = 0;
    tries = 0;
    told = received;
    order({ received });
    size();
    say(session === null ? "With the container’s program." : `Session ${session}.`);
  });
  mine.addEventListener("message", ({ data }) => {
    if (socket !== mine) return;
    if (typeof data === "string") {
      const said = JSON.parse(data);
      if (said.lost) {
        received += said.lost;
        terminal.write(`\r\n[${said.lost} bytes were not kept]\r\n`);
      }
      if (said.refused) say(said.refused.detail);
      if (said.exited) {
        ended = true;
        tell(said.exited);
      }
      return;
    }
    const bytes = new Uint8Array(data, 1);
    received += bytes.length;
    const at = received;
    terminal.write(bytes, () => {
      if (socket !== mine || at - told < TOLD_BYTES) return;
      told = at;
      order({ received: at });
    });
  });
  mine.addEventListener("close", ({ code }) => {
    if (socket !== mine || ended) return;
    if (code === 4001) say("Attached to from elsewhere.");
    else if (code === 1008) say("The right to it has ended.");
    else comeBack();
  });
}

function tell({ code, signal }) {
  if (code !== null) say(`Ended with exit code ${code}.`);
  else if (signal !== null) say(`Ended by signal ${signal}.`);
  else say("Ended.");
}

/** Tries again for as long as the server keeps the session. */
async function comeBack() {
  const mine = socket;
  lostAt = lostAt || Date.now();
  if (Date.now() - lostAt > AWAY_MS_MAX) {
    say("The connection is lost, and the session with it.");
    return;
  }
  say("Connection lost; coming back …");
  await new Promise((done) => setTimeout(done, RETRY_MS[Math.min(tries, RETRY_MS.length - 1)]));
  tries += 1;
  try {
    const answer = await fetch(place());
    if (socket !== mine) return;
    if (answer.status === 404) say("The session has ended.");
    else if (session === null && answer.ok && (await answer.json()).status !== "running") say("The program has ended.");
    else if (socket === mine) connect();
  } catch {
    if (socket === mine) comeBack();
  }
}

panel.addEventListener("submit", (event) => {
  event.preventDefault();
  open(event.target);
});

panel.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.terminalAttach) {
    await ready();
    attach(Number(button.dataset.terminalAttach));
  } else if (button.matches("[data-terminal-first]")) {
    await ready();
    attach(null);
  } else if (button.dataset.terminalEnd) {
    button.disabled = true;
    const answer = await fetch(`${api}/${button.dataset.terminalEnd}`, { method: "DELETE" }).catch(() => null);
    if (!answer || !(answer.ok || answer.status === 404)) say("It could not be ended.");
  } else if (button.matches("[data-terminal-copy]")) {
    copy();
  } else if (button.matches("[data-terminal-full]")) {
    await panel.requestFullscreen().catch(() => say("The browser did not let it fill the screen."));
    if (terminal) terminal.focus();
  }
});
