#include "worker/queue/config/provider_keys.h"

#include <algorithm>

#include "shared/base/secret_file.h"
#include "worker/queue/config/names.h"
#include "worker/queue/config/webhook_target.h"

namespace penstock::queue {
namespace {

constexpr size_t kMaxSecretBytes = 512;
constexpr size_t kMaxHostnames = 64;
constexpr int64_t kLongestTimeoutNs = 20 * kNsPerSec;  // an Nginx waits a little longer
constexpr int64_t kLongestAgeNs = 3600 * kNsPerSec;

struct Known {
  const char* name;
  const char* url;
};
constexpr Known kKnown[] = {
    {"turnstile", "https://challenges.cloudflare.com/turnstile/v0/siteverify"},
    {"hcaptcha", "https://api.hcaptcha.com/siteverify"},
    {"recaptcha", "https://www.google.com/recaptcha/api/siteverify"},
};

void read_secret(Section& section, const std::string& file, ProviderConfig& provider) {
  std::string path;
  section.text("secret_file", path);
  if (path.empty()) {
    return section.complain(
        "secret_file", "is missing; write the path of a file that holds the provider's secret");
  }
  provider.secret_file = relative_to(file, path);
  const auto secret = read_secret_file(provider.secret_file, kMaxSecretBytes);
  if (!secret) {
    return section.complain("secret_file", secret.error().message);
  }
  if (secret->is_too_open()) {
    return section.complain("secret_file", "may be read by all; chmod 0640 it, or less");
  }
  provider.secret = secret->text;
  provider.secret.erase(provider.secret.find_last_not_of(" \t\r\n") + 1);
  const bool good = !provider.secret.empty() && provider.secret.size() <= kMaxSecretBytes &&
                    std::all_of(provider.secret.begin(), provider.secret.end(),
                                [](char c) { return c > ' ' && c < 127; });
  section.note_hidden("secret_file", path, provider.secret);
  if (!good) {
    section.complain("secret_file", "must hold the provider's secret, one line of printable text");
  }
}

std::string in_lower_case(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return text;
}

void read_hostnames(Section& section, ProviderConfig& provider) {
  const YAML::Node list = section.take("hostnames");
  const auto is_host = [](const YAML::Node& item) {
    return item.IsScalar() && !item.Scalar().empty() && item.Scalar().size() <= 253 &&
           item.Scalar().find_first_of("/: *") == std::string::npos;
  };
  if (!list.IsDefined() || !list.IsSequence() || list.size() == 0 || list.size() > kMaxHostnames ||
      !std::all_of(list.begin(), list.end(), is_host)) {
    return section.complain(
        "hostnames", std::string(list.IsDefined() ? "must be" : "is missing; write") +
                         " a list of the hosts whose pages have the widget, like [example.com]: "
                         "an answer from any other page is refused");
  }
  for (const auto& item : list) {
    provider.hostnames.push_back(in_lower_case(item.Scalar()));
  }
}

// The secret goes there.
bool may_ask(const std::string& url) {
  const std::string host = host_of(url);
  const bool here = host == "localhost" || host == "127.0.0.1" || host == "::1" || host == "[::1]";
  return !host.empty() && (url.starts_with("https://") || (here && url.starts_with("http://")));
}

ProviderConfig read_provider(const YAML::Node& node, const Known& known, const std::string& file,
                             Complaints& complaints) {
  Section section(node, std::string("challenges.") + known.name, complaints);
  ProviderConfig provider{.name = known.name, .url = known.url};
  read_secret(section, file, provider);
  read_hostnames(section, provider);
  section.text("action", provider.action);
  if (provider.name == "hcaptcha" && section.has("action")) {
    section.complain("action", "is not known to hcaptcha; leave it out");
  }
  if (provider.name == "recaptcha" && section.has("score")) {
    section.fraction("score", provider.least_score.emplace(), 0, 1);
  }
  section.duration("timeout", provider.timeout_ns, 100 * kNsPerMs);
  if (provider.timeout_ns > kLongestTimeoutNs) {
    section.complain("timeout", "must be at most 20s; callers wait for it");
  }
  section.duration("max_age", provider.max_age_ns, kNsPerSec);
  if (provider.max_age_ns > kLongestAgeNs) {
    section.complain("max_age", "must be at most 1h");
  }
  section.boolean("remote_ip", provider.sends_remote_ip);
  section.text("url", provider.url);
  if (!may_ask(provider.url)) {
    section.complain("url",
                     "must be https://HOST/PATH (http:// only of this machine, for tests); without "
                     "it the provider itself is asked");
  }
  section.done();
  return provider;
}

}  // namespace

std::vector<ProviderConfig> read_providers(const YAML::Node& node, const std::string& file,
                                           Complaints& complaints) {
  std::vector<ProviderConfig> providers;
  Section section(node, "challenges", complaints);
  for (const Known& known : kKnown) {
    if (const YAML::Node value = section.take(known.name); value.IsDefined()) {
      providers.push_back(read_provider(value, known, file, complaints));
    }
  }
  section.done();
  return providers;
}

}  // namespace penstock::queue
