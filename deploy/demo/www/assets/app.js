// Semidiurnal tides: a high water about every 12 h 25 min, from one known high water.
const period = (12 * 60 + 25.2) * 60_000;
const known = Date.UTC(2026, 0, 1, 3, 10);
const next = known + Math.ceil((Date.now() - known) / (period / 2)) * (period / 2);
const table = document.getElementById("tides");
for (let i = 0; i < 8; i++) {
  const at = next + (i * period) / 2;
  const row = table.insertRow();
  const high = Math.round((at - known) / (period / 2)) % 2 === 0;
  row.insertCell().textContent = new Date(at).toLocaleString();
  row.insertCell().textContent = high ? "high water" : "low water";
}
