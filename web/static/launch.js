// The launch form: sizes fill the fields, and what the server makes of the form is shown while it is
// filled in. Without this script the size buttons, too, ask the server for the form again, as the
// preview always does: its answer says beside each field what is wrong with it.

const launchForm = document.querySelector("form[data-launch]");
if (launchForm) previewLaunch(launchForm);

function previewLaunch(form) {
  let timer = 0;
  let number = 0;
  const ask = async () => {
    const mine = (number += 1);
    const body = new URLSearchParams(new FormData(form));
    try {
      const answer = await fetch("/launch/preview", { method: "POST", body, headers: { accept: "text/html" } });
      if (!answer.ok || mine !== number) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const id of ["preview", "left", "sizes"]) {
        const [shown, now] = [document.getElementById(id), page.getElementById(id)];
        if (shown && now) morph(shown, document.importNode(now, true));
      }
      document.dispatchEvent(new CustomEvent("berth:updated"));
    } catch {
      // The form works without a preview; the launch itself says what is wrong.
    }
  };
  const soon = () => {
    clearTimeout(timer);
    timer = setTimeout(ask, 350);
  };
  form.addEventListener("input", soon);
  form.addEventListener("change", soon);
  form.addEventListener("click", (event) => {
    const size = event.target.closest("[data-size]");
    if (!size) return;
    event.preventDefault();
    const { cpu, weight, memory, swap, pids } = size.dataset;
    const values = { cpu, cpu_weight: weight, memory, swap, pids };
    for (const [name, value] of Object.entries(values)) form.elements[name].value = value;
    ask();
  });
}
