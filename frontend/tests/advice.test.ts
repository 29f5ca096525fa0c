import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { ADVICE } from "../src/advice";

const OURS = ["broke_off", "lost"];

test("what there is advice for can happen", () => {
  const readme = readFileSync("../README.md", "utf8");
  const known = Object.keys(ADVICE).filter((code) => readme.includes(`| \`${code}\` |`));
  expect([...known, ...OURS].sort()).toEqual(Object.keys(ADVICE).sort());
});
