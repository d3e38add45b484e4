import { defineConfig } from "vite";

export default defineConfig({
  base: "./",
  define: { "process.env": {}, global: "globalThis" },
  esbuild: { jsx: "automatic" },
  build: { outDir: "dist", chunkSizeWarningLimit: 20000, minify: false },
  logLevel: "warn",
});
