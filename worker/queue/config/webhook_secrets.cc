#include "worker/queue/config/webhook_secrets.h"

#include <optional>
#include <sstream>

#include "shared/base/base64.h"
#include "shared/base/secret_file.h"
#include "worker/queue/text/log.h"

namespace penstock::queue {
namespace {

constexpr std::string_view kPrefix = "whsec_";
constexpr size_t kShortest = 24;
constexpr size_t kLongest = 64;

}  // namespace

Result<WebhookSecrets> WebhookSecrets::load(const std::string& path) {
  const auto file = read_secret_file(path, kMostFileBytes);
  if (!file) {
    return file.error();
  }
  if (file->text.size() > kMostFileBytes) {
    return Error{path + " is too large for a file of secrets, one a line"};
  }
  if (file->is_too_open()) {
    log(Level::kWarn, path +
                          " is open to more than its owner and readers of its group; "
                          "whoever reads it can forge webhooks: chmod 0640 " +
                          path);
  }
  return parse(file->text, path);
}

Result<WebhookSecrets> WebhookSecrets::parse(std::string_view text, const std::string& path) {
  WebhookSecrets secrets;
  std::istringstream lines{std::string(text)};
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) {
      line.pop_back();
    }
    if (line.empty()) {
      continue;
    }
    const auto secret = line.starts_with(kPrefix)
                            ? decode_base64(std::string_view(line).substr(kPrefix.size()))
                            : std::nullopt;
    if (!secret || secret->size() < kShortest || secret->size() > kLongest) {
      return Error{path + ":" + std::to_string(number) +
                   ": a secret is whsec_ and base64 of 24 to 64 random bytes; make one by: "
                   "echo whsec_$(openssl rand -base64 32)"};
    }
    if (secrets.secrets_.size() == kMostSecrets) {
      return Error{path + ": more than " + std::to_string(kMostSecrets) + " secrets"};
    }
    secrets.secrets_.push_back(*secret);
  }
  if (secrets.empty()) {
    return Error{path + " has no secret; make one by: echo whsec_$(openssl rand -base64 32)"};
  }
  return secrets;
}

}  // namespace penstock::queue
