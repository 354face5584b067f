// Checks a certificate and a manifest's signature by the code that Expo's own tools use.
// Usage: expo_certificate.js CODE_SIGNING FORGE CERTIFICATE MANIFEST SIGNATURE [LEAF]
const Module = require("module");
const fs = require("fs");
const path = require("path");

const [codeSigning, forgeFolder, certificate, manifest, signature, leaf] = process.argv.slice(2);
const load = Module._load;
Module._load = function (name, ...rest) {
  return load.call(this, name === "node-forge" ? path.resolve(forgeFolder) : name, ...rest);
};
const expo = require(path.resolve(codeSigning));
const forge = require("node-forge");

const embedded = expo.convertCertificatePEMToCertificate(fs.readFileSync(certificate, "utf8"));
let signer = embedded;
if (leaf) {
  signer = expo.convertCertificatePEMToCertificate(fs.readFileSync(leaf, "utf8"));
  // Its chain verification knows no critical ExtendedKeyUsage, which Expo's generator makes.
  if (!embedded.verify(signer)) throw new Error("the root did not issue the leaf");
} else {
  // The private key is where nobody gets it: only its public half is compared here.
  const { n, e } = embedded.publicKey;
  expo.validateSelfSignedCertificate(embedded, {
    publicKey: embedded.publicKey,
    privateKey: { n, e },
  });
}
const digest = forge.md.sha256.create().update(fs.readFileSync(manifest).toString("binary"));
const raw = Buffer.from(signature, "base64").toString("binary");
if (!signer.publicKey.verify(digest.digest().getBytes(), raw)) {
  throw new Error("signature does not verify");
}
console.log("verified");
