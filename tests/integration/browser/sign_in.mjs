// Signing in with a key that was typed once, and out: node sign_in.mjs BASE_URL KEY SCREENSHOTS.
import assert from "node:assert/strict";
import { assertUsable, launch, photographer, play, sees, watched } from "./browser.mjs";

const [, , base, key, screenshots] = process.argv;
const photograph = photographer(screenshots);
const browser = await launch();
const context = await watched(browser, base);
const page = await context.newPage();

const cookie = async () => (await context.cookies()).find(({ name }) => name === "penstock-key");
const type = async (text) => {
  await page.fill("#sign-in-key", text);
  await page.keyboard.press("Enter");
};

const chapters = {
  async "a key that nobody issued is refused with words"() {
    await page.goto(`${base}/`);
    await sees(page, "#sign-in-button", "Sign in");
    await page.click("#sign-in-button");
    await type("sk-penstock-of-nobody");
    await sees(page, "#sign-in-why", "This key is not known");
    await assertUsable(page);
    await photograph(page, "sign-in");
    assert.equal(await cookie(), undefined);
  },

  async "with one that was issued the page is its owner's"() {
    await type(`  ${key} `);
    await sees(page, "#sign-in-button", "team-a · Sign out");
    await sees(page, "#limits", "plan pro");
    await page.reload();
    await sees(page, "#sign-in-button", "team-a · Sign out");
    await assertUsable(page);
  },

  async "the key is nowhere in the page, nor where scripts can read"() {
    const { value, httpOnly, sameSite } = await cookie();
    assert.ok(httpOnly && sameSite === "Strict" && !value.includes(key.slice(12)));
    const kept = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie, location.href,
      document.documentElement.outerHTML, document.querySelector("#sign-in-key").value]));
    assert.ok(!kept.includes(key.slice(12)) && !kept.includes(value));
  },

  async "out again it is a browser's without a key"() {
    await page.click("#sign-in-button");
    await sees(page, "#sign-in-button", "Sign in");
    assert.equal(await cookie(), undefined);
  },
};

await play(chapters, { browser, context, page, photograph, fault: "sign-in-fault" });
