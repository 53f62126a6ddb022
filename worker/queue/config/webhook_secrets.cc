#include "worker/queue/config/webhook_secrets.h"

#include <openssl/evp.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "worker/queue/text/log.h"

namespace penstock::queue {
namespace {

constexpr std::string_view kPrefix = "whsec_";
constexpr size_t kShortest = 24;
constexpr size_t kLongest = 64;
constexpr size_t kMaxFileBytes = 4096;
constexpr mode_t kTooLoose = 0777 & ~mode_t{0640};

// Empty: it is no base64.
std::string unbase64(const std::string& text) {
  std::string bytes(text.size(), '\0');
  const int size = EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes.data()),
                                   reinterpret_cast<const unsigned char*>(text.data()),
                                   static_cast<int>(text.size()));
  const auto padding = static_cast<size_t>(std::count(text.begin(), text.end(), '='));
  if (size < 0 || text.size() % 4 != 0 || padding > 2) {
    return {};
  }
  bytes.resize(static_cast<size_t>(size) - padding);
  return bytes;
}

}  // namespace

Result<WebhookSecrets> WebhookSecrets::load(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(kMaxFileBytes + 1, '\0');
  if (!file) {
    return Error{path + " cannot be read: " + std::strerror(errno)};
  }
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kMaxFileBytes) {
    return Error{path + " is too large for a file of secrets, one a line"};
  }
  if (struct stat status{};
      ::stat(path.c_str(), &status) == 0 && (status.st_mode & kTooLoose) != 0) {
    log(Level::kWarn, path +
                          " is open to more than its owner and readers of its group; "
                          "whoever reads it can forge webhooks: chmod 0640 " +
                          path);
  }
  return parse(text, path);
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
    const std::string secret =
        line.starts_with(kPrefix) ? unbase64(line.substr(kPrefix.size())) : std::string();
    if (secret.size() < kShortest || secret.size() > kLongest) {
      return Error{path + ":" + std::to_string(number) +
                   ": a secret is whsec_ and base64 of 24 to 64 random bytes; make one by: "
                   "echo whsec_$(openssl rand -base64 32)"};
    }
    if (secrets.secrets_.size() == kMostSecrets) {
      return Error{path + ": more than " + std::to_string(kMostSecrets) + " secrets"};
    }
    secrets.secrets_.push_back(secret);
  }
  if (secrets.empty()) {
    return Error{path + " has no secret; make one by: echo whsec_$(openssl rand -base64 32)"};
  }
  return secrets;
}

}  // namespace penstock::queue
