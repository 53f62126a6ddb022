#include "worker/queue/config/webhook_target.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <ifaddrs.h>
#include <netinet/in.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <memory>

namespace penstock::queue {
namespace {

struct Free {
  void operator()(CURLU* url) const { curl_url_cleanup(url); }
  void operator()(char* text) const { curl_free(text); }
};

std::string part(CURLU* url, CURLUPart which, unsigned flags = 0) {
  char* text = nullptr;
  if (curl_url_get(url, which, &text, flags) != CURLUE_OK) {
    return {};
  }
  const std::unique_ptr<char, Free> owned(text);
  return text;
}

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return out;
}

bool is_host_name(const std::string& text) {
  return !text.empty() && text.size() <= 253 &&
         text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-.") == std::string::npos &&
         text.find_first_of("abcdefghijklmnopqrstuvwxyz") != std::string::npos;
}

constexpr uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};

}  // namespace

std::string host_of(const std::string& url) {
  const std::unique_ptr<CURLU, Free> parsed(curl_url());
  return curl_url_set(parsed.get(), CURLUPART_URL, url.c_str(), 0) == CURLUE_OK
             ? lower(part(parsed.get(), CURLUPART_HOST))
             : std::string();
}

std::string address_of(const std::string& url) {
  const std::unique_ptr<CURLU, Free> parsed(curl_url());
  return curl_url_set(parsed.get(), CURLUPART_URL, url.c_str(), 0) == CURLUE_OK
             ? lower(part(parsed.get(), CURLUPART_HOST)) + ":" +
                   part(parsed.get(), CURLUPART_PORT, CURLU_DEFAULT_PORT)
             : std::string();
}

Result<WebhookTargets> WebhookTargets::create(const std::vector<std::string>& allow) {
  WebhookTargets targets;
  for (const std::string& text : allow) {
    Block block;
    const std::string host = lower(text);
    if (read_block(text, block)) {
      targets.blocks_.push_back(block);
    } else if (is_host_name(host)) {
      targets.hosts_.push_back(host);
    } else {
      return Error{"'" + text.substr(0, 100) +
                   "' is no address, block of addresses (10.0.0.0/8) or name of a host"};
    }
  }
  return targets;
}

bool WebhookTargets::read_block(const std::string& text, Block& block) {
  const size_t slash = std::min(text.find('/'), text.size());
  const std::string address = text.substr(0, slash);
  in_addr four{};
  in6_addr six{};
  int most = 128;
  if (::inet_pton(AF_INET, address.c_str(), &four) == 1) {
    std::memcpy(block.address.data(), kMapped, sizeof kMapped);
    std::memcpy(block.address.data() + sizeof kMapped, &four, sizeof four);
    most = 32;
  } else if (::inet_pton(AF_INET6, address.c_str(), &six) == 1) {
    std::memcpy(block.address.data(), &six, sizeof six);
  } else {
    return false;
  }
  int bits = most;
  if (slash < text.size()) {
    const char* const end = text.data() + text.size();
    const auto [at, error] = std::from_chars(text.data() + slash + 1, end, bits);
    if (error != std::errc() || at != end || bits < 0 || bits > most) {
      return false;
    }
  }
  block.bits = 128 - most + bits;
  return true;
}

bool WebhookTargets::contains(const Block& block, const Address& address) {
  const auto whole = static_cast<size_t>(block.bits / 8);
  const int rest = block.bits % 8;
  return std::equal(address.begin(), address.begin() + static_cast<ptrdiff_t>(whole),
                    block.address.begin()) &&
         (rest == 0 || (address[whole] ^ block.address[whole]) >> (8 - rest) == 0);
}

bool WebhookTargets::read_address(const sockaddr& from, Address& address) {
  if (from.sa_family == AF_INET) {
    sockaddr_in four;
    std::memcpy(&four, &from, sizeof four);
    std::memcpy(address.data(), kMapped, sizeof kMapped);
    std::memcpy(address.data() + sizeof kMapped, &four.sin_addr, sizeof four.sin_addr);
    return true;
  }
  if (from.sa_family == AF_INET6) {
    sockaddr_in6 six;
    std::memcpy(&six, &from, sizeof six);
    std::memcpy(address.data(), &six.sin6_addr, sizeof six.sin6_addr);
    return true;
  }
  return false;
}

bool WebhookTargets::is_special(const Address& address) {
  static const std::vector<Block> kSpecial = [] {
    std::vector<Block> blocks;
    for (const char* text :
         {"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
          "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16",
          "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
          // Azure's WireServer; IBM Cloud's services.
          "168.63.129.16", "161.26.0.0/16", "166.8.0.0/14",
          // IPv6: of it only 2000::/3 is global, and of that not all.
          "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"}) {
      read_block(text, blocks.emplace_back());
    }
    return blocks;
  }();
  const bool four = std::equal(std::begin(kMapped), std::end(kMapped), address.begin());
  const bool global_six = (address[0] & 0xE0) == 0x20;
  return (!four && !global_six) ||
         std::any_of(kSpecial.begin(), kSpecial.end(),
                     [&](const Block& block) { return contains(block, address); });
}

// Asked each time: interfaces come and go.
bool WebhookTargets::is_own(const Address& address) {
  ifaddrs* first = nullptr;
  if (::getifaddrs(&first) != 0) {
    return true;  // nobody knows
  }
  const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> owned(first, ::freeifaddrs);
  for (const ifaddrs* each = first; each != nullptr; each = each->ifa_next) {
    if (Address own{};
        each->ifa_addr != nullptr && read_address(*each->ifa_addr, own) && own == address) {
      return true;
    }
  }
  return false;
}

bool WebhookTargets::allowed(const Address& address) const {
  return !(is_special(address) || is_own(address)) ||
         std::any_of(blocks_.begin(), blocks_.end(),
                     [&](const Block& block) { return contains(block, address); });
}

bool WebhookTargets::allowed(std::string_view host) const {
  return std::find(hosts_.begin(), hosts_.end(), lower(host)) != hosts_.end();
}

bool WebhookTargets::allows(std::string_view host, const sockaddr& address) const {
  Address read{};
  return read_address(address, read) && (allowed(read) || allowed(host));
}

bool WebhookTargets::allows(std::string_view host, const char* address) const {
  Block read;
  return read_block(address, read) && (allowed(read.address) || allowed(host));
}

Status WebhookTargets::check(std::string_view url) const {
  const auto printable = [](char c) { return c > 0x20 && c < 0x7F; };
  if (url.size() > kMaxUrlBytes || !std::all_of(url.begin(), url.end(), printable)) {
    return Error{"Penstock-Callback is a URL of at most 2048 printable characters."};
  }
  const std::unique_ptr<CURLU, Free> parsed(curl_url());
  if (curl_url_set(parsed.get(), CURLUPART_URL, std::string(url).c_str(), 0) != CURLUE_OK) {
    return Error{"Penstock-Callback is no absolute URL, as in https://example.com/hook."};
  }
  const std::string scheme = part(parsed.get(), CURLUPART_SCHEME);
  if (scheme != "https" && scheme != "http") {
    return Error{"Penstock-Callback must begin with https:// or http://."};
  }
  if (!part(parsed.get(), CURLUPART_USER).empty() ||
      !part(parsed.get(), CURLUPART_PASSWORD).empty()) {
    return Error{"Penstock-Callback must not carry a user name or password."};
  }
  std::string host = part(parsed.get(), CURLUPART_HOST);
  if (host.size() > 2 && host.front() == '[') {
    host = host.substr(1, host.size() - 2);
  }
  Block literal;
  if (!allowed(host) && read_block(host, literal) && !allowed(literal.address)) {
    return Error{"Penstock-Callback must not be a private or special address."};
  }
  return Ok{};
}

}  // namespace penstock::queue
