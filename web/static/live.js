// Live pages: the server renders, this keeps what it rendered up to date.
//
// Every live_secs the page's own address is fetched again, and each element marked data-live is
// changed in place into what the server says now: nothing is drawn twice, in two languages. Focus,
// selection, open menus and what somebody is typing stay. A hidden tab asks for nothing.
// There is no innerHTML here: fetched pages are parsed into a document that runs no script.

const doc = document.documentElement;
doc.classList.add("scripted");

/** Makes element `from` equal to `to`, keeping nodes that are still the same. */
function morph(from, to) {
  if (from.nodeType === Node.TEXT_NODE) {
    if (from.data !== to.data) from.data = to.data;
    return;
  }
  for (const { name } of [...from.attributes]) {
    if (!to.hasAttribute(name) && !kept(from, name)) from.removeAttribute(name);
  }
  for (const { name, value } of to.attributes) {
    if (from.getAttribute(name) !== value && !kept(from, name)) from.setAttribute(name, value);
  }
  if (from.matches("input, textarea, select")) return;
  if (from.hasAttribute("data-spark")) return;
  const byId = new Map();
  for (const child of from.children) if (child.id) byId.set(child.id, child);
  let at = from.firstChild;
  for (const wanted of [...to.childNodes]) {
    let match = null;
    if (wanted.id && byId.has(wanted.id)) match = byId.get(wanted.id);
    else if (at && !at.id && !wanted.id && alike(at, wanted)) match = at;
    if (match) {
      if (match !== at) from.insertBefore(match, at);
      else at = at.nextSibling;
      morph(match, wanted);
    } else {
      from.insertBefore(document.importNode(wanted, true), at);
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function alike(a, b) {
  return a.nodeType === b.nodeType && a.nodeName === b.nodeName;
}

/** What belongs to the person and not to the server. */
function kept(element, name) {
  if (name === "open") return element.matches("details, dialog");
  if (name === "hidden") return element.matches("[data-copy], [data-script]");
  if (name === "class") return element.matches("tr.cursor");
  return name === "checked" || (name === "disabled" && element.matches("[data-working]"));
}

const live = { timer: 0, secs: Number(document.body.dataset.liveSecs || 0), busy: false, seen: new Date(), hurry: 0 };

/** Brings the live regions up to date; `hurry` asks again soon, as after an action. */
async function refresh() {
  if (live.busy || !live.secs || document.hidden) return;
  live.busy = true;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" }, cache: "no-store" });
    if (answer.redirected && new URL(answer.url).pathname !== location.pathname) {
      location.reload();
      return;
    }
    if (answer.status === 404 || answer.status === 410) {
      if (location.pathname.startsWith("/containers/")) location.assign("/containers");
      return;
    }
    if (!answer.ok) throw new Error(String(answer.status));
    apply(new DOMParser().parseFromString(await answer.text(), "text/html"));
    live.seen = new Date();
    stale(false);
  } catch {
    stale(true);
  } finally {
    live.busy = false;
    schedule();
  }
}

function apply(page) {
  for (const region of document.querySelectorAll("[data-live]")) {
    if (region.id === "flash") continue;
    const now = page.getElementById(region.id);
    if (now) morph(region, document.importNode(now, true));
  }
  if (page.title) document.title = page.title;
  const icon = page.getElementById("favicon");
  const shown = document.getElementById("favicon");
  if (icon && shown && icon.getAttribute("href") !== shown.getAttribute("href")) {
    shown.setAttribute("href", icon.getAttribute("href"));
  }
  live.secs = Number(page.body.dataset.liveSecs || 0);
  document.dispatchEvent(new CustomEvent("berth:updated"));
}

function stale(yes) {
  const strip = document.getElementById("stale");
  if (!strip) return;
  if (yes) strip.querySelector("span").textContent = `Connection lost. Showing what was so at ${live.seen.toLocaleTimeString()}; trying again.`;
  strip.hidden = !yes;
}

function schedule() {
  clearTimeout(live.timer);
  if (!live.secs) return;
  const wait = live.hurry > 0 ? 400 : live.secs * 1000;
  if (live.hurry > 0) live.hurry -= 1;
  live.timer = setTimeout(refresh, wait);
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(live.timer);
  else refresh();
});
schedule();
