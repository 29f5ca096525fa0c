import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { ADVICE } from "../src/advice";

const CLIENT_CODES = ["broke_off", "lost"];

test("advice exists only for documented API codes and client-side codes", () => {
  const documented = readFileSync("../docs/errors.md", "utf8");
  const apiCodes = Object.keys(ADVICE).filter((code) => documented.includes(`| \`${code}\` |`));
  expect([...apiCodes, ...CLIENT_CODES].sort()).toEqual(Object.keys(ADVICE).sort());
});
