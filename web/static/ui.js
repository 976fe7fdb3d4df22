// What hands do: actions without leaving the page, dialogs, copying, menus, selection, the keyboard.
// Each of these has a plain form or link below it that does the same without this script.

function toast(text, tone) {
  const box = document.createElement("p");
  box.className = `toast ${tone}`;
  box.textContent = text;
  document.getElementById("toasts").append(box);
  setTimeout(() => box.remove(), tone === "bad" ? 12000 : 5000);
}

function reveal(root) {
  for (const button of root.querySelectorAll("[data-copy][hidden], [data-script][hidden]")) button.hidden = false;
}
reveal(document);
document.addEventListener("berth:updated", () => reveal(document));

// Actions of rows and heads: posted without leaving; the answer's notice becomes a toast.
document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.matches("form[data-quick]") || event.defaultPrevented) return;
  const button = event.submitter;
  if (!button || button.matches("[data-dialog-post]")) return;
  event.preventDefault();
  await act(form, button);
});

async function act(form, button) {
  const body = new URLSearchParams(new FormData(form));
  if (!button.formAction.includes("/bulk/")) body.delete("id");
  const target = button.hasAttribute("formaction") ? button.formAction : form.action;
  button.disabled = true;
  button.dataset.working = "";
  try {
    const answer = await fetch(target, { method: "POST", body, headers: { accept: "text/html" } });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const notice = page.getElementById("flash") || page.querySelector(".notice[role=alert]");
    const bad = !answer.ok || (notice && notice.classList.contains("bad"));
    const words = notice ? notice.textContent.trim() : bad ? problemText(page) : "";
    if (words) toast(words, bad ? "bad" : "good");
    for (const box of form.querySelectorAll(".pick input:checked")) if (!bad) box.checked = false;
    const there = new URL(answer.url);
    if (answer.ok && there.pathname === location.pathname) apply(page);
    live.hurry = 6;
    await refresh();
    if (!live.secs) location.reload();
  } catch {
    toast("The server did not answer. Nothing is known to have changed.", "bad");
  } finally {
    button.disabled = false;
    delete button.dataset.working;
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
    if (location.pathname === "/containers") address.searchParams.set("back", location.pathname + location.search);
    await ask(fetch(address, { headers: { accept: "text/html" } }), link.href, link);
  }
  const post = event.target.closest("button[data-dialog-post]");
  if (post) {
    event.preventDefault();
    const body = new URLSearchParams(new FormData(post.form));
    await ask(fetch(post.formAction, { method: "POST", body, headers: { accept: "text/html" } }), "", post);
  }
});

async function ask(request, fallback, opener) {
  try {
    const answer = await request;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const body = page.querySelector("[data-dialog-body]");
    if (!answer.ok || !body) throw new Error("no question");
    const dialog = document.createElement("dialog");
    const shown = document.importNode(body, true);
    const title = shown.querySelector("h1");
    if (title) {
      title.id = "dialog-title";
      dialog.setAttribute("aria-labelledby", "dialog-title");
    }
    dialog.append(shown);
    document.body.append(dialog);
    dialog.addEventListener("close", () => {
      dialog.remove();
      opener.focus();
    });
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close();
    });
    dialog.showModal();
  } catch {
    if (fallback) location.assign(fallback);
    else toast("The server did not answer.", "bad");
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

// The number of selected rows.
function selection() {
  for (const form of document.querySelectorAll("[data-bulk]")) {
    const label = form.querySelector(".bulk-count");
    const count = form.querySelectorAll(".pick input:checked").length;
    if (label) label.textContent = count ? `${count} selected:` : "With the selected:";
  }
}
document.addEventListener("change", selection);
document.addEventListener("berth:updated", selection);

// The keyboard.
const keys = [
  ["/", "Filter"],
  ["g then c, i, p, a", "Containers, images, people, account"],
  ["g then l", "Launch"],
  ["j, k", "Next, previous row"],
  ["x", "Select the row"],
  ["Enter", "Open the row"],
  ["?", "These keys"],
];
let leading = 0;
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.key === "Escape") {
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
    return;
  }
  if (event.target.matches("input:not([type=checkbox]), textarea, select")) return;
  if (Date.now() - leading < 1200) {
    leading = 0;
    const link = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
    if (link) location.assign(link.href);
    else if (event.key === "l") location.assign("/launch");
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
  } else if (event.key === "j") move(1);
  else if (event.key === "k") move(-1);
  else if (event.key === "x") {
    const box = document.querySelector("tr.cursor .pick input");
    if (box) box.click();
  } else if (event.key === "Enter" && !event.target.closest("a, button, summary")) {
    const link = document.querySelector("tr.cursor th a");
    if (link) link.click();
  } else if (event.key === "?") showKeys(event.target);
});

function move(step) {
  const rows = [...document.querySelectorAll("#rows tbody tr")];
  if (!rows.length) return;
  const at = rows.findIndex((row) => row.classList.contains("cursor"));
  const next = Math.min(rows.length - 1, Math.max(0, at + step));
  if (at >= 0) rows[at].classList.remove("cursor");
  rows[next].classList.add("cursor");
  rows[next].scrollIntoView({ block: "nearest" });
}

function showKeys(opener) {
  const dialog = document.createElement("dialog");
  const body = document.createElement("section");
  body.className = "panel";
  const title = document.createElement("h2");
  title.textContent = "Keys";
  const list = document.createElement("dl");
  list.className = "keys";
  for (const [key, meaning] of keys) {
    const name = document.createElement("dt");
    const keyboard = document.createElement("kbd");
    keyboard.textContent = key;
    name.append(keyboard);
    const words = document.createElement("dd");
    words.textContent = meaning;
    list.append(name, words);
  }
  body.append(title, list);
  dialog.append(body);
  document.body.append(dialog);
  dialog.addEventListener("close", () => {
    dialog.remove();
    opener.focus();
  });
  dialog.showModal();
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
    hint.textContent = share < 100 ? `Uploading: ${share} %` : "Uploaded. Unpacking and checking it…";
  });
  request.addEventListener("load", () => {
    button.disabled = false;
    hint.textContent = words;
    const page = new DOMParser().parseFromString(request.responseText, "text/html");
    const notice = page.getElementById("flash") || page.querySelector(".import-form .field-error, .notice[role=alert]");
    const bad = request.status >= 400 || !notice || notice.matches(".field-error, .bad");
    toast(notice ? notice.textContent.trim() : problemText(page), bad ? "bad" : "good");
    if (!bad) location.assign("/images");
  });
  request.addEventListener("error", () => {
    button.disabled = false;
    hint.textContent = words;
    toast("The upload was cut off. Nothing was imported.", "bad");
  });
  request.send(new FormData(form));
});
