import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { defineConfig, loadEnv, type Plugin } from "vite";
import { WAVEFORM_HEIGHT } from "./src/sizes.ts";

const COMPRESSED = /\.(css|html|js|svg)$/;

/** The one inline style of the page: wavesurfer's, which it writes into each waveform. */
function wavesurferStyle(): string {
  const code = readFileSync(createRequire(import.meta.url).resolve("wavesurfer.js"), "utf8");
  const found = /<style\$\{.*?\}>(.*?)<\/style>/s.exec(code)?.[1];
  const height = /\$\{this\.getHeight\(.*?\)\}/;
  if (found === undefined || !height.test(found)) {
    throw new Error("wavesurfer.js has another style than it had: adapt wavesurferStyle");
  }
  return found.replaceAll("\\n", "\n").replace(height, String(WAVEFORM_HEIGHT));
}

/**
 * The content security policy, in the page itself: so it holds wherever the page is served. Servers
 * that can send it as a header take it from here.
 */
function policy(api: string): string {
  const hash = createHash("sha256").update(wavesurferStyle()).digest("base64");
  return [
    "default-src 'none'",
    "script-src 'self'",
    `style-src 'self' 'sha256-${hash}'`,
    "img-src 'self'",
    "media-src blob:", // a chosen file, to be asked for its length
    `connect-src 'self' ${api ? new URL(api).origin : ""}`.trim(),
    "base-uri 'none'",
    "form-action 'none'",
  ].join("; ");
}

function contentSecurityPolicy(api: string): Plugin {
  return {
    name: "content-security-policy",
    apply: "build",
    transformIndexHtml: () => [
      {
        tag: "meta",
        attrs: { "http-equiv": "Content-Security-Policy", content: policy(api) },
        injectTo: "head-prepend",
      },
    ],
  };
}

/** Compressed copies beside the files, for servers that hand them out as they are. */
function compressed(): Plugin {
  let folder = "";
  return {
    name: "compressed",
    apply: "build",
    configResolved: (config) => {
      folder = config.build.outDir;
    },
    closeBundle: () => {
      for (const name of readdirSync(folder, { recursive: true, encoding: "utf8" })) {
        if (!COMPRESSED.test(name)) continue;
        const path = join(folder, name);
        const content = readFileSync(path);
        writeFileSync(`${path}.gz`, gzipSync(content, { level: 9 }));
        writeFileSync(`${path}.br`, brotliCompressSync(content));
      }
    },
  };
}

export default defineConfig(({ mode }) => ({
  base: "./",
  build: { target: "es2022", assetsInlineLimit: 0, modulePreload: { polyfill: false } },
  plugins: [contentSecurityPolicy(loadEnv(mode, ".").VITE_API_URL ?? ""), compressed()],
  server: {
    port: 3000,
    proxy: { "/api": "http://localhost:8001", "/health": "http://localhost:8001" },
  },
}));
