
"use strict";
{
  const KEY = "rcompress-view";
  const MOST_FAILURES = 5;
  const shown = document.querySelector("meta[name=version]").content;
  const state = document.getElementById("live");
  const tables = [...document.querySelectorAll(".filtered")];

  const view = (section) => {
    const sorted = section.querySelector("th[aria-sort]");
    return { filter: section.querySelector("input").value, column: sorted ? sorted.cellIndex : -1,
      down: sorted !== null && sorted.getAttribute("aria-sort") === "descending" };
  };

  const restore = (section, { filter, column, down }) => {
    const button = section.querySelectorAll("th button")[column];
    if (button) button.click();
    if (button && down) button.click();
    const field = section.querySelector("input");
    field.value = filter;
    field.dispatchEvent(new Event("input"));
  };

  const before = JSON.parse(sessionStorage.getItem(KEY) ?? "{}");
  for (const section of tables) {
    if (before[section.dataset.table]) restore(section, before[section.dataset.table]);
  }

  let failures = 0;
  const poll = async () => {
    try {
      const answer = await fetch("version", { cache: "no-store" });
      if (answer.ok && (await answer.text()) !== shown) {
        const views = tables.map((section) => [section.dataset.table, view(section)]);
        sessionStorage.setItem(KEY, JSON.stringify({ ...before, ...Object.fromEntries(views) }));
        location.reload();
        return;
      }
      failures = 0;
      state.value = "Live: refreshes when records arrive.";
    } catch {
      failures += 1;
      if (failures >= MOST_FAILURES)
        state.value = "No longer live: rcompress report --watch has ended. Refreshes when it runs again at this address.";
    }
    setTimeout(poll, 1000);
  };
  poll();
}
