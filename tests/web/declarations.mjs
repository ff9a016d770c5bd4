// Make TypeScript declarations of the JSON Schema on standard input, for tools/make_api_types.py.
import { readFileSync } from "node:fs";
import { compile } from "json-schema-to-typescript";

const banner = `// Jobs, results and the status of qwen-image-daemon, for programs over its folders.
// Written by tools/make_api_types.py out of the models: do not change it by hand.`;

const declarations = await compile(JSON.parse(readFileSync(0, "utf8")), "Documents", {
  additionalProperties: false,
  bannerComment: banner,
  ignoreMinAndMaxItems: true,
  style: { printWidth: 110 },
});
process.stdout.write(declarations);
