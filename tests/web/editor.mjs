// Ask the JSON service of VS Code what it shows for documents, for tests/integration/test_editors.py.
//
// Standard input: {schema, documents: [text]}. A text with a caret (|) asks what is offered there, one without it what
// is wrong. Standard output: for each document a list of [label, inserted text], or of [underlined text, message].
import { readFileSync } from "node:fs";
import services from "vscode-json-languageservice";

const { getLanguageService, TextDocument } = services;
const { schema, documents } = JSON.parse(readFileSync(0, "utf8"));
const service = getLanguageService({});
service.configure({ validate: true, schemas: [{ uri: "schema:job", fileMatch: ["*"], schema }] });

async function shown(text) {
  const at = text.indexOf("|");
  const document = TextDocument.create("file:///job.json", "json", 1, text.replace("|", ""));
  const parsed = service.parseJSONDocument(document);
  if (at >= 0) {
    const { items } = await service.doComplete(document, document.positionAt(at), parsed);
    return items.map((item) => [item.label, item.insertText]);
  }
  const faults = await service.doValidation(document, parsed);
  return faults.map((fault) => [document.getText(fault.range), fault.message]);
}

process.stdout.write(JSON.stringify(await Promise.all(documents.map(shown))));
