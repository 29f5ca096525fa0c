import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { defineConfig, loadEnv, type Plugin } from "vite";
import { WAVEFORM_HEIGHT } from "./src/sizes.ts";

const COMPRESSED = /\.(css|html|js|svg)$/;

/** Returns the only inline style of the page, which wavesurfer.js adds to each waveform. */
function wavesurferStyle(): string {
  const code = readFileSync(createRequire(import.meta.url).resolve("wavesurfer.js"), "utf8");
  const style = /<style\$\{.*?\}>(.*?)<\/style>/s.exec(code)?.[1];
  const height = /\$\{this\.getHeight\(.*?\)\}/;
  if (style === undefined || !height.test(style)) {
    throw new Error("wavesurfer.js has changed its inline style: update wavesurferStyle");
  }
  return style.replaceAll("\\n", "\n").replace(height, String(WAVEFORM_HEIGHT));
}

/**
 * Returns the content security policy. It is embedded in the page, so that it applies on any web
 * server; servers that send it as a header read it from the page.
 */
function policy(api: string): string {
  const hash = createHash("sha256").update(wavesurferStyle()).digest("base64");
  return [
    "default-src 'none'",
    "script-src 'self'",
    `style-src 'self' 'sha256-${hash}'`,
    "img-src 'self'",
    "media-src blob:", // chosen files, to read their duration
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

/** Writes compressed copies next to the files, for servers that serve precompressed files. */
function compressed(): Plugin {
  let directory = "";
  return {
    name: "compressed",
    apply: "build",
    configResolved: (config) => {
      directory = config.build.outDir;
    },
    closeBundle: () => {
      for (const name of readdirSync(directory, { recursive: true, encoding: "utf8" })) {
        if (!COMPRESSED.test(name)) continue;
        const path = join(directory, name);
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
