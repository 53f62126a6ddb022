#include "ngx_module/pages/decision.h"

#include <sys/random.h>

#include <cstring>

#include "ngx_module/conf/conf.h"
#include "ngx_module/hand_over/receipt_codec.h"
#include "ngx_module/reply/page.h"
#include "ngx_module/request/headers.h"
#include "ngx_module/request/request.h"
#include "shared/base/hmac.h"
#include "shared/wire/receipt.h"

namespace penstock {
namespace {

// A receipt: its number, when it was given (steady time of the signing zone's table), what was
// charged, and the signature.
constexpr size_t kNumberBytes = 8;
constexpr size_t kHeadBytes = kNumberBytes + 8;
constexpr size_t kSignatureBytes = 16;
// For so long it may be settled. Then it is refused, and a while later the mark that it was settled
// is gone. Between the two, another process may be at it still.
constexpr int64_t kHoldsNs = 3600 * kNsPerSec;
static_assert(kHoldsNs < kMarkNs);
constexpr int64_t kRetryAfterSeconds = 1;
constexpr std::string_view kMarkedAs = "penstock_decide";

// The zone whose secret signs, and that knows what is settled; nullptr: there is none that counts.
Zone* signing_zone(const MainConf& main) noexcept {
  for (Zone* zone : main.zones) {
    if (zone->table.has_value()) {
      return zone;
    }
  }
  return nullptr;
}

bool sign(const MainConf& main, std::string_view text, char* signature) noexcept {
  const Zone* const zone = signing_zone(main);
  if (zone == nullptr) {
    return false;
  }
  const limit::Secret secret = limit::derive_secret(zone->table->secret(), "decisions' receipts");
  char key[sizeof secret];
  std::memcpy(key, &secret, sizeof key);
  const Digest digest = hmac({key, sizeof key}, text);
  std::memcpy(signature, digest.data(), kSignatureBytes);
  return true;
}

// The header's value; `data` is nullptr when memory ran out.
ngx_str_t write_receipt(ngx_http_request_t* r, uint64_t number, std::string_view charges) noexcept {
  const Zone* const zone = signing_zone(*main_conf(r));
  ngx_str_t bytes{kHeadBytes + charges.size() + kSignatureBytes, nullptr};
  auto* text = static_cast<char*>(ngx_pnalloc(r->pool, bytes.len));
  ngx_str_t told{ngx_base64_encoded_length(bytes.len), nullptr};
  told.data = static_cast<u_char*>(ngx_pnalloc(r->pool, told.len));
  if (zone == nullptr || text == nullptr || told.data == nullptr) {
    return {};
  }
  const int64_t given_ns = instant(*zone->table).steady_ns;
  std::memcpy(text, &number, kNumberBytes);
  std::memcpy(text + kNumberBytes, &given_ns, sizeof given_ns);
  std::memcpy(text + kHeadBytes, charges.data(), charges.size());
  const size_t size = kHeadBytes + charges.size();
  if (!sign(*main_conf(r), {text, size}, text + size)) {
    return {};
  }
  bytes.data = reinterpret_cast<u_char*>(text);
  ngx_encode_base64url(&told, &bytes);
  return told;
}

struct Told {
  uint64_t number = 0;
  HeldReceipt* held = nullptr;  // nullptr: of what it charged nothing is here any more
  bool good = false;
  bool old = false;
};

Told read_receipt(ngx_http_request_t* r) noexcept {
  const std::string_view text = find_header(r, "penstock-receipt");
  constexpr size_t kMost = kHeadBytes + wire::kMaxReceiptBytes + kSignatureBytes;
  if (text.empty() || text.size() > ngx_base64_encoded_length(kMost)) {
    return {};
  }
  ngx_str_t told = str(text);
  ngx_str_t bytes{0,
                  static_cast<u_char*>(ngx_pnalloc(r->pool, ngx_base64_decoded_length(told.len)))};
  if (bytes.data == nullptr || ngx_decode_base64url(&bytes, &told) != NGX_OK ||
      bytes.len < kHeadBytes + kSignatureBytes) {
    return {};
  }
  const std::string_view all = view(bytes);
  const std::string_view said = all.substr(0, all.size() - kSignatureBytes);
  char signature[kSignatureBytes];
  if (!sign(*main_conf(r), said, signature) ||
      CRYPTO_memcmp(signature, all.data() + said.size(), kSignatureBytes) != 0) {
    return {};
  }
  Told found{.good = true};
  int64_t given_ns = 0;
  std::memcpy(&found.number, said.data(), kNumberBytes);
  std::memcpy(&given_ns, said.data() + kNumberBytes, sizeof given_ns);
  found.old = instant(*signing_zone(*main_conf(r))->table).steady_ns >= given_ns + kHoldsNs;
  if (!found.old) {
    found.held =
        decode_receipt(*main_conf(r), said.substr(kHeadBytes), Part::kOwn, r->connection->log);
  }
  return found;
}

bool push_receipt(ngx_http_request_t* r, uint64_t number, const Receipt& receipt) noexcept {
  const std::string_view charges = encode_receipt(r->pool, *main_conf(r), receipt);
  const ngx_str_t told = charges.empty() ? ngx_str_t{} : write_receipt(r, number, charges);
  return charges.empty() ||
         (told.data != nullptr && push_header(r, "Penstock-Receipt", told) != nullptr);
}

ngx_int_t decide(ngx_http_request_t* r) noexcept {
  RequestState* const state = state_of(r);
  uint64_t number = 0;
  if (state == nullptr || ngx_http_discard_request_body(r) != NGX_OK ||
      getrandom(&number, sizeof number, 0) != sizeof number ||
      !push_receipt(r, number, state->receipt)) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;  // what was charged is given back as it ends
  }
  Page page(r);
  page.raw("{\"allowed\":true}\n");
  const ngx_int_t rc = page.send();
  if (rc == NGX_OK || rc == NGX_AGAIN) {
    hand_over(state->receipt);
  }
  return rc;
}

// What the header says was used; what it does not say is what was reserved.
bool read_used(ngx_http_request_t* r, std::string_view header, uint64_t reserved,
               uint64_t& used) noexcept {
  const std::string_view text = find_header(r, header);
  const ngx_int_t number =
      text.empty()
          ? 0
          : ngx_atoi(reinterpret_cast<u_char*>(const_cast<char*>(text.data())), text.size());
  used = text.empty() ? reserved : std::min(static_cast<uint64_t>(number), kMostUsed);
  return number >= 0;
}

ngx_int_t end_of(ngx_http_request_t* r, const Told& told) noexcept {
  Receipt& receipt = receipt_of(*told.held);
  Usage usage;
  if (!read_used(r, "penstock-tokens", reserved_of(receipt, Unit::kTokens), usage.tokens) ||
      !read_used(r, "penstock-gpu-ms", reserved_of(receipt, Unit::kGpu), usage.gpu_ms)) {
    return NGX_HTTP_BAD_REQUEST;
  }
  switch (mark_settled(*signing_zone(*main_conf(r))->table, kMarkedAs, told.number, {})) {
    case limit::Outcome::admitted:
      break;
    case limit::Outcome::refused:
      return NGX_OK;
    default:
      return NGX_HTTP_SERVICE_UNAVAILABLE;
  }
  if (r->method == NGX_HTTP_DELETE) {
    refund(receipt, true);
  } else {
    settle(receipt, usage);
  }
  give_leases_back(receipt);
  return NGX_OK;
}

// Behind the settlement there is nothing to be kept.
ngx_int_t keep_places(ngx_http_request_t* r, const Told& told) noexcept {
  if (is_settled(*signing_zone(*main_conf(r))->table, kMarkedAs, told.number, {})) {
    return NGX_OK;
  }
  renew_once(receipt_of(*told.held), kMarkedAs, told.number);
  return push_receipt(r, told.number, receipt_of(*told.held)) ? NGX_OK
                                                              : NGX_HTTP_INTERNAL_SERVER_ERROR;
}

ngx_int_t settle_decision(ngx_http_request_t* r) noexcept {
  if (const ngx_int_t rc =
          check_method(r, NGX_HTTP_POST | NGX_HTTP_PUT | NGX_HTTP_DELETE, "POST, PUT, DELETE");
      rc != NGX_DECLINED) {
    return rc;
  }
  if (ngx_http_discard_request_body(r) != NGX_OK) {
    r->keepalive = 0;
  }
  const Told told = read_receipt(r);
  if (!told.good) {
    return refuse_page(r, {.status = 400,
                           .detail = "Penstock-Receipt is missing, or is none that this host has "
                                     "given with its present counters.",
                           .code = "bad_receipt"});
  }
  if (told.old) {
    return refuse_page(r, {.status = 410,
                           .detail = "Penstock-Receipt was given more than an hour ago. What was "
                                     "reserved by then stands.",
                           .code = "receipt_expired"});
  }
  ngx_int_t rc = NGX_OK;
  if (told.held != nullptr) {
    rc = r->method == NGX_HTTP_PUT ? keep_places(r, told) : end_of(r, told);
    forget_receipt(told.held);
  }
  if (rc == NGX_HTTP_BAD_REQUEST) {
    return refuse_page(r, {.status = 400,
                           .detail = "Penstock-Tokens and Penstock-GPU-Ms are whole numbers.",
                           .code = "bad_usage"});
  }
  if (rc == NGX_HTTP_SERVICE_UNAVAILABLE) {
    return refuse_page(r,
                       {.status = 503,
                        .detail = "There is no room now to note that it is settled; nothing was. "
                                  "Try again.",
                        .code = "busy",
                        .retry_after_s = kRetryAfterSeconds});
  }
  Page page(r);
  page.raw("{}\n");
  return rc == NGX_OK ? page.send() : rc;
}

}  // namespace

char* read_decide(ngx_conf_t* cf, ngx_command_t*, void*) noexcept {
  return set_handler(cf, decide);
}

char* read_settle(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  return set_page(cf, *static_cast<LocConf*>(conf), settle_decision);
}

}  // namespace penstock
