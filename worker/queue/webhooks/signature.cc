#include "worker/queue/webhooks/signature.h"

#include "shared/base/hmac.h"
#include "worker/queue/text/base64.h"

namespace penstock::queue {

std::string webhook_signature(const WebhookSecrets& secrets, std::string_view id, int64_t timestamp,
                              std::string_view body) {
  std::string text(id);
  text.append(".").append(std::to_string(timestamp)).append(".").append(body);
  std::string header;
  for (const std::string& secret : secrets.keys()) {
    const Digest digest = hmac(secret, text);
    header += (header.empty() ? "v1," : " v1,") +
              base64({reinterpret_cast<const char*>(digest.data()), digest.size()});
  }
  return header;
}

}  // namespace penstock::queue
