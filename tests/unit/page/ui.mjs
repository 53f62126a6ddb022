// The page's modules, loaded by Node.js: there they need a package that says what they are.
import { rmSync } from "node:fs";
import { cp, mkdtemp, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

export const WWW = fileURLToPath(new URL("../../../config/www/", import.meta.url));
const folder = await mkdtemp(join(tmpdir(), "penstock-ui-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
for (const part of ["ui", "console"]) {
  await cp(join(WWW, part), join(folder, part), { recursive: true });
}
await writeFile(join(folder, "package.json"), '{"type":"module"}');

export const load = (name, part = "ui") => import(pathToFileURL(join(folder, part, name)));
export const textOf = (name) => readFile(join(WWW, name), "utf8");
export const entries = async (language, part = "ui") => JSON.parse(await textOf(`${part}/words.${language}.json`));
