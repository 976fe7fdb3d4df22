// What hands do: actions without leaving the page, dialogs, copying, menus, selection, the keyboard.
// Each of these has a plain form or link below it that does the same without this script.

const TOASTS_MAX = 4;
const TYPING_MS = 200;

function toast(text, tone) {
  const list = document.getElementById("toasts");
  const box = document.createElement("p");
  box.className = `toast ${tone}`;
  box.textContent = text;
  list.append(box);
  while (list.childElementCount > TOASTS_MAX) list.firstElementChild.remove();
  setTimeout(() => box.remove(), tone === "bad" ? 12000 : 5000);
}

/** A toast on the page that comes next. */
function toastThere(text, tone, address) {
  sessionStorage.setItem("berth-toast", JSON.stringify([text, tone]));
  location.assign(address);
}

const waiting = sessionStorage.getItem("berth-toast");
if (waiting) {
  sessionStorage.removeItem("berth-toast");
  toast(...JSON.parse(waiting));
}

/** What is in a file goes into the field that it is for, to be looked at before it is sent. */
document.addEventListener("change", async (event) => {
  const field = document.getElementById(event.target.dataset?.into ?? "");
  const file = event.target.files?.[0];
  if (field && file) field.value = await file.text();
});

function reveal() {
  for (const part of document.querySelectorAll("[data-copy][hidden], [data-script][hidden]")) part.hidden = false;
}
reveal();
document.addEventListener("berth:updated", reveal);

const wrong = document.querySelector("main [aria-invalid=true]");
if (wrong) wrong.focus();

// While the server has not answered, the button says so; what is shown changes when it has.
const DOING = { Start: "Starting", Stop: "Stopping", Restart: "Restarting", Kill: "Killing", Pause: "Pausing", Resume: "Resuming", Cancel: "Cancelling", Launch: "Launching", Pull: "Asking", Save: "Saving", Remove: "Removing" };

function begin(button) {
  const words = [...button.childNodes].findLast((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
  const before = words ? words.data : "";
  button.dataset.working = "";
  button.setAttribute("aria-disabled", "true");
  if (words) words.data = `${DOING[before.trim().split(/[\s…]/)[0]] || before.trim().replace("…", "")}…`;
  return () => {
    if (words) words.data = before;
    button.removeAttribute("aria-disabled");
    delete button.dataset.working;
  };
}

// A form is sent once, however often its button is pressed.
document.addEventListener("submit", (event) => {
  const button = event.submitter;
  if (!button) return;
  if (button.hasAttribute("data-working")) {
    event.preventDefault();
    event.stopImmediatePropagation();
    return;
  }
  const form = event.target;
  if (form.matches("[data-quick], [data-upload]") || form.method !== "post") return;
  if (button.closest("dialog")) {
    event.preventDefault();
    answerDialog(button.closest("dialog"), form, button);
    return;
  }
  setTimeout(() => {
    const end = begin(button);
    addEventListener("pageshow", end, { once: true });
  });
});

// Actions of rows and heads: posted without leaving; the answer's notice becomes a toast.
document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.matches("form[data-quick]") || event.defaultPrevented) return;
  const button = event.submitter;
  if (!button || button.matches("[data-dialog-post], [formmethod=get]")) return;
  event.preventDefault();
  await act(form, button);
});

async function post(form, button) {
  const target = button.hasAttribute("formaction") ? button.formAction : form.action;
  const body = new URLSearchParams(new FormData(form));
  if (!target.includes("/bulk/")) body.delete("id");
  if (button.name) body.set(button.name, button.value);
  const answer = await fetch(target, { method: "POST", body, headers: { accept: "text/html" } });
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const notice = page.getElementById("flash") || page.querySelector(".notice[role=alert], .field-error");
  const bad = !answer.ok || Boolean(notice && notice.matches(".bad, .field-error"));
  const words = notice ? notice.textContent.trim() : bad ? problemText(page) : "";
  return { answer, page, bad, words };
}

async function act(form, button) {
  const end = begin(button);
  try {
    const { answer, page, bad, words } = await post(form, button);
    for (const box of form.querySelectorAll(".pick input:checked")) if (!bad) box.checked = false;
    const there = new URL(answer.url);
    if (answer.ok && there.pathname !== location.pathname) {
      toastThere(words, bad ? "bad" : "good", there.pathname + there.search);
      return;
    }
    end();
    if (words) toast(words, bad ? "bad" : "good");
    if (answer.ok) apply(page);
    selection();
    live.hurry = 6;
    await refresh(true);
  } catch {
    toast("The server did not answer. Nothing is known to have changed.", "bad");
  } finally {
    end();
    for (const menu of document.querySelectorAll("details.menu[open]")) menu.open = false;
  }
}

function problemText(page) {
  const what = page.querySelector("h1");
  const detail = what && what.nextElementSibling;
  return [what, detail].filter(Boolean).map((part) => part.textContent.trim()).join(": ") || "It was refused.";
}

// Links that ask first open their page's question in a dialog.
document.addEventListener("click", async (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const close = event.target.closest("dialog [data-close]");
  if (close) {
    event.preventDefault();
    close.closest("dialog").close();
    return;
  }
  const link = event.target.closest("a[data-dialog]");
  if (link) {
    event.preventDefault();
    const address = new URL(link.href);
    if (document.getElementById("rows")) address.searchParams.set("back", location.pathname + location.search);
    await ask(fetch(address, { headers: { accept: "text/html" } }), link.href, link);
  }
  const asks = event.target.closest("button[data-dialog-post]");
  if (asks) {
    event.preventDefault();
    const body = new URLSearchParams(new FormData(asks.form));
    asks.disabled = true;
    await ask(fetch(asks.formAction, { method: "POST", body, headers: { accept: "text/html" } }), "", asks);
    asks.disabled = false;
    live.hurry = 6;
    await refresh(true);
  }
});

async function ask(request, fallback, opener) {
  try {
    const answer = await request;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const body = page.querySelector("[data-dialog-body]");
    if (!body) {
      const notice = page.getElementById("flash");
      if (!answer.ok) toast(problemText(page), "bad");
      else if (notice) toast(notice.textContent.trim(), notice.classList.contains("bad") ? "bad" : "good");
      else throw new Error("no question");
      return;
    }
    show(document.importNode(body, true), opener);
  } catch {
    if (fallback) location.assign(fallback);
    else toast("The server did not answer.", "bad");
  }
}

/** A native dialog with this content, which gives the focus back. */
function show(content, opener) {
  const dialog = document.createElement("dialog");
  const title = content.querySelector("h1, h2");
  if (title) {
    title.id = "dialog-title";
    dialog.setAttribute("aria-labelledby", "dialog-title");
  }
  dialog.append(content);
  document.body.append(dialog);
  dialog.addEventListener("close", () => {
    dialog.remove();
    const menu = opener.closest("details.menu");
    if (menu && !menu.open) menu.querySelector("summary").focus();
    else if (opener.isConnected) opener.focus();
    else document.getElementById("main").focus();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.showModal();
}

/** What was answered in a dialog: refused, it stays and says why; else the page goes on. */
async function answerDialog(dialog, form, button) {
  const end = begin(button);
  try {
    const { answer, page, bad, words } = await post(form, button);
    const again = page.querySelector("[data-dialog-body]");
    if (answer.ok && again) {
      dialog.replaceChildren(document.importNode(again, true));
      return;
    }
    if (!answer.ok) {
      const line = dialog.querySelector(".notice.bad") || document.createElement("p");
      line.className = "notice bad";
      line.setAttribute("role", "alert");
      line.textContent = words;
      form.before(line);
      return;
    }
    const there = new URL(answer.url);
    if (there.pathname !== location.pathname) {
      toastThere(words, bad ? "bad" : "good", there.pathname + there.search);
      return;
    }
    dialog.close();
    if (words) toast(words, bad ? "bad" : "good");
    apply(page);
    live.hurry = 6;
    await refresh(true);
  } catch {
    toast("The server did not answer. Nothing is known to have changed.", "bad");
  } finally {
    end();
  }
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) {
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      toast("Copied.", "good");
    } catch {
      toast("The browser did not let it be copied; mark it and copy by hand.", "bad");
    }
  }
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});

// Lists follow the filter while it is typed; the address keeps it.
let typing = 0;
document.addEventListener("input", (event) => {
  const form = event.target.closest("form[role=search][method=get]");
  if (!form || !event.target.matches("[data-search]") || !document.querySelector("[data-live]")) return;
  clearTimeout(typing);
  typing = setTimeout(() => {
    const address = new URL(form.action);
    if (address.pathname !== location.pathname) return;
    for (const [name, value] of new FormData(form)) if (value) address.searchParams.set(name, value);
    history.replaceState(null, "", address);
    refresh(true);
  }, TYPING_MS);
});

// Selected rows: how many, all of them, a range with the shift key.
let lastPicked = null;
function selection() {
  for (const form of document.querySelectorAll("[data-bulk]")) {
    const label = form.querySelector(".bulk-count");
    const boxes = [...form.querySelectorAll("tbody .pick input, [data-rows] .pick input")];
    const count = boxes.filter((box) => box.checked).length;
    if (label) label.textContent = count ? `${count} selected:` : "With the selected:";
    for (const all of form.querySelectorAll("[data-all]")) {
      all.checked = count > 0 && count === boxes.length;
      all.indeterminate = count > 0 && count < boxes.length;
    }
  }
}
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-all]")) {
    for (const box of event.target.form.querySelectorAll("tbody .pick input")) box.checked = event.target.checked;
  }
  selection();
});
document.addEventListener("click", (event) => {
  const box = event.target;
  if (!box.matches("tbody .pick input")) return;
  if (event.shiftKey && lastPicked && lastPicked.isConnected && lastPicked.form === box.form) {
    const boxes = [...box.form.querySelectorAll("tbody .pick input")];
    const [from, to] = [boxes.indexOf(lastPicked), boxes.indexOf(box)].sort((a, b) => a - b);
    for (const between of boxes.slice(from, to + 1)) between.checked = box.checked;
  }
  lastPicked = box;
  selection();
});
document.addEventListener("berth:updated", selection);
selection();

// The keyboard.
let leading = 0;
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const target = event.target;
  if (event.key === "Escape") {
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
    if (target.matches("[data-search]")) target.blur();
    return;
  }
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    const menu = target.closest("details.menu[open]");
    if (menu) {
      event.preventDefault();
      step([...menu.querySelectorAll("summary, a, button")], target, event.key === "ArrowDown" ? 1 : -1);
    }
    return;
  }
  if (target.matches("input:not([type=checkbox], [type=radio]), textarea, select")) return;
  if (event.key === "Enter" && target.matches(".pick input")) {
    // It would press the form's first button, whichever row that is of.
    event.preventDefault();
    const link = target.closest("tr") && target.closest("tr").querySelector("th a");
    if (link) link.click();
    return;
  }
  if (Date.now() - leading < 1200) {
    leading = 0;
    const link = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
    if (link) location.assign(link.href);
    return;
  }
  if (event.key === "g") leading = Date.now();
  else if (event.key === "/") {
    const search = document.querySelector("[data-search], [data-log-find]");
    if (search) {
      event.preventDefault();
      search.focus();
      search.select();
    }
  } else if (event.key === "j" || event.key === "k") {
    const rows = [...document.querySelectorAll("#rows tbody tr, [data-rows] > *")];
    const here = rows.indexOf(target.closest("#rows tbody tr, [data-rows] > *"));
    const next = rows[here < 0 ? 0 : Math.min(rows.length - 1, Math.max(0, here + (event.key === "j" ? 1 : -1)))];
    if (!next) return;
    // The focus itself moves, so that Enter opens and a screen reader follows.
    const there = next.querySelector("th a, .name a") || next.querySelector("a, button, input") || next;
    if (there === next) next.tabIndex = -1;
    there.focus();
    next.scrollIntoView({ block: "nearest" });
  } else if (event.key === "x") {
    const row = target.closest("tr, [data-rows] > *");
    const box = row && row.querySelector(".pick input");
    if (box) {
      event.preventDefault();
      box.click();
    }
  } else if (event.key === "?") {
    event.preventDefault();
    showKeys(target);
  }
});

function step(items, here, by) {
  const at = items.indexOf(here);
  const next = items[(at + by + items.length) % items.length];
  if (next) next.focus();
}

function showKeys(opener) {
  const body = document.createElement("section");
  body.className = "panel";
  const title = document.createElement("h2");
  title.textContent = "Keys";
  const list = document.createElement("dl");
  list.className = "keys";
  const line = (keys, meaning) => {
    const name = document.createElement("dt");
    for (const key of keys) {
      const keyboard = document.createElement("kbd");
      keyboard.textContent = key;
      name.append(keyboard);
    }
    const words = document.createElement("dd");
    words.textContent = meaning;
    list.append(name, words);
  };
  line(["/"], "Filter what is listed");
  line(["j", "k"], "Next and previous row");
  line(["x"], "Select the row; with Shift and the mouse, all up to it");
  line(["Enter"], "Open the row");
  for (const link of document.querySelectorAll("[data-key]")) line(["g", link.dataset.key], link.dataset.keyLabel || link.textContent.trim());
  line(["Esc"], "Close a menu or a dialog");
  line(["?"], "These keys");
  const close = document.createElement("button");
  close.type = "button";
  close.dataset.close = "";
  close.textContent = "Close";
  body.append(title, list, close);
  show(body, opener === document.body ? document.getElementById("main") : opener);
}

// Uploads show how far they are.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.matches("form[data-upload]") || event.defaultPrevented) return;
  event.preventDefault();
  const button = form.querySelector("button");
  const hint = form.querySelector(".hint");
  const words = hint.textContent;
  const request = new XMLHttpRequest();
  button.disabled = true;
  request.open("POST", form.action);
  request.setRequestHeader("accept", "text/html");
  request.upload.addEventListener("progress", (sent) => {
    if (!sent.lengthComputable) return;
    const share = Math.floor((sent.loaded * 100) / sent.total);
    hint.textContent = share < 100 ? `Uploading: ${share} %` : form.dataset.after || "Uploaded. Unpacking and checking it…";
  });
  request.addEventListener("load", () => {
    button.disabled = false;
    hint.textContent = words;
    const page = new DOMParser().parseFromString(request.responseText, "text/html");
    const notice = page.getElementById("flash") || page.querySelector(".import-form .field-error, .notice[role=alert]");
    const bad = request.status >= 400 || !notice || notice.matches(".field-error, .bad");
    const said = notice ? notice.textContent.trim() : problemText(page);
    if (bad) toast(said, "bad");
    else toastThere(said, "good", form.dataset.upload || "/images");
  });
  request.addEventListener("error", () => {
    button.disabled = false;
    hint.textContent = words;
    toast(form.dataset.cut || "The upload was cut off. Nothing was imported.", "bad");
  });
  request.send(new FormData(form));
});
