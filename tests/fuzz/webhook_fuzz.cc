// What webhooks are told by people: callbacks, by callers; secrets and what is allowed, by
// operators.
#include <arpa/inet.h>
#include <netinet/in.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "worker/queue/config/webhook_target.h"
#include "worker/queue/webhooks/signature.h"

namespace {

using penstock::queue::host_of;
using penstock::queue::WebhookSecrets;
using penstock::queue::WebhookTargets;

void check(bool holds) {
  if (!holds) {
    std::abort();
  }
}

// A callback that is taken has a host, and never a literal one that could not be connected to.
void callback(const std::string& text) {
  const WebhookTargets targets;
  if (!targets.check(text)) {
    return;
  }
  std::string host = host_of(text);
  check(!host.empty());
  if (host.front() == '[') {
    host = host.substr(1, host.size() - 2);
  }
  in_addr four;
  in6_addr six;
  if (::inet_pton(AF_INET, host.c_str(), &four) == 1 ||
      ::inet_pton(AF_INET6, host.c_str(), &six) == 1) {
    check(targets.allows("", host.c_str()));
  }
}

// Whatever is allowed, some of the public internet is.
void allowed(const std::string& text) {
  if (const auto targets = WebhookTargets::create({text})) {
    check(targets->allows("", "93.184.216.34"));
    check(!targets->allows("", "no address"));
  }
}

void secrets(const std::string& text) {
  const auto read = WebhookSecrets::parse(text, "fuzz.secret");
  check(read ? webhook_signature(*read, "id", 1, "{}").starts_with("v1,")
             : !read.error().message.empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  callback(text);
  allowed(text);
  secrets(text);
  return 0;
}
