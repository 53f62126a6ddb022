// The secrets that sign webhooks, and the file they lie in.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/result.h"

namespace penstock::queue {

class WebhookSecrets {
 public:
  static constexpr size_t kMostSecrets = 8;
  static constexpr size_t kMostFileBytes = 4096;

  // One secret a line: "whsec_" and base64 of 24 to 64 bytes. Of several, all sign, so that
  // receivers may change over to a new one. The error names file and line, and says what would be
  // right. A file that others may read, or anyone but its owner write, is warned of in the log.
  static Result<WebhookSecrets> load(const std::string& path);
  static Result<WebhookSecrets> parse(std::string_view text, const std::string& path);

  bool empty() const { return secrets_.empty(); }
  // Raw bytes.
  const std::vector<std::string>& keys() const { return secrets_; }

 private:
  std::vector<std::string> secrets_;
};

}  // namespace penstock::queue
