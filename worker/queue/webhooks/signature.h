// Webhook signatures: Standard Webhooks 1.0.0, symmetric.
//
//   webhook-signature: v1,BASE64(HMAC-SHA256(secret, "ID.TIMESTAMP.BODY"))
//
// Source:
// https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/result.h"

namespace penstock::queue {

class WebhookSecrets {
 public:
  static constexpr size_t kMostSecrets = 8;

  // One secret a line: "whsec_" and base64 of 24 to 64 bytes. Of several, all sign, so that
  // receivers may change over to a new one. The error names file and line, and says what would be
  // right. A file that others may read, or anyone but its owner write, is warned of in the log.
  static Result<WebhookSecrets> load(const std::string& path);
  static Result<WebhookSecrets> parse(std::string_view text, const std::string& path);

  bool empty() const { return secrets_.empty(); }
  // The header's value.
  std::string sign(std::string_view id, int64_t timestamp, std::string_view body) const;

 private:
  std::vector<std::string> secrets_;  // raw bytes
};

}  // namespace penstock::queue
