// Prints the package hash of a folder CodePush, by the code that appcenter-cli signs with.
// Usage: codepush_hash.js APPCENTER LODASH FOLDER
const Module = require("module");
const path = require("path");

const [appcenter, lodash, folder] = process.argv.slice(2);
const load = Module._load;
Module._load = function (name, ...rest) {
  if (name === "lodash") return load.call(this, path.resolve(lodash), ...rest);
  // They delete temporary files, of which there are none here.
  if (name === "rimraf" || name === "temp") return { track: () => ({}) };
  return load.call(this, name, ...rest);
};
const hash = require(path.resolve(appcenter, "dist/commands/codepush/lib/hash-utils.js"));
hash
  .generatePackageHashFromDirectory(path.join(folder, "CodePush"), folder)
  .then((digest) => console.log(digest));
