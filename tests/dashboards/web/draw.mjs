// node draw.mjs DATA OUT CHROMIUM BOARDS THEMES: serves the built page and the data, takes a picture of each dashboard in
// each theme, and prints its path.
import { createReadStream, existsSync, mkdirSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import puppeteer from "puppeteer-core";

const [data, out, chromium, ...lists] = process.argv.slice(2);
const [boards, themes] = lists.map((list) => list.split(","));
const site = join(import.meta.dirname, "dist");
const types = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".json": "application/json" };
const WIDTH = 1280;

const server = createServer((request, response) => {
  const path = normalize(new URL(request.url, "http://here").pathname);
  const file = path === "/data.json" ? data : join(site, path === "/" ? "index.html" : path);
  if (!existsSync(file)) return response.writeHead(404).end();
  response.writeHead(200, { "content-type": types[extname(file)] ?? "application/octet-stream" });
  createReadStream(file).pipe(response);
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const origin = `http://127.0.0.1:${server.address().port}`;

mkdirSync(out, { recursive: true });
const browser = await puppeteer.launch({
  executablePath: chromium,
  args: ["--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-color-profile=srgb"],
});
try {
  for (const board of boards) {
    for (const theme of themes) {
      const page = await browser.newPage();
      const problems = [];
      page.on("pageerror", (error) => problems.push(String(error)));
      await page.setViewport({ width: WIDTH, height: 1000 });
      await page.goto(`${origin}/?board=${board}&theme=${theme}`);
      await page.waitForFunction(() => /^(drawn|failed)/.test(document.title), { timeout: 60_000 });
      const title = await page.title();
      const empty = await page.$$eval(".panel", (panels) =>
        panels.filter((panel) => !panel.querySelector("canvas, table") && !panel.lastChild.innerText).map((panel) => panel.innerText));
      problems.push(...empty.map((name) => `nothing in panel "${name}"`));
      if (title !== "drawn" || problems.length) throw new Error(`${board}: ${[title, ...problems].join("; ")}`);
      const path = join(out, `${board.replace("wsgiapp-", "dashboard-")}-${theme}.webp`);
      const shown = await page.$(".board");
      await shown.screenshot({ path, type: "webp", quality: 90 });
      console.log(path);
      // What fits a page: the app's dashboard down to its pods.
      if (board === "wsgiapp-app") {
        const top = join(out, `dashboard-reload-${theme}.webp`);
        const end = await page.$eval("[data-first]", (row) => row.getBoundingClientRect().top + window.scrollY);
        await page.screenshot({ path: top, type: "webp", quality: 90, clip: { x: 0, y: 0, width: WIDTH, height: end } });
        console.log(top);
      }
      await page.close();
    }
  }
} finally {
  await browser.close();
  server.close();
}
