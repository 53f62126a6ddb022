#include "ngx_module/variables.h"

#include "ngx_module/admit/known_variables.h"
#include "ngx_module/conf/text.h"
#include "ngx_module/keys/known_key.h"
#include "ngx_module/request/request.h"
#include "ngx_module/request/session.h"

namespace penstock {
namespace {

using Reader = std::string_view (*)(ngx_http_request_t* r, RequestState& state, ngx_pool_t* pool);

std::string_view print(ngx_pool_t* pool, uint64_t number) noexcept {
  const ngx_str_t text = copy_number(pool, number);
  return text.data == nullptr ? std::string_view{} : view(text);
}

std::string_view tier(ngx_http_request_t*, RequestState& s, ngx_pool_t*) {
  return s.tier == nullptr ? std::string_view{} : view(s.tier->name);
}

std::string_view status(ngx_http_request_t*, RequestState& s, ngx_pool_t*) {
  return words_of(s.outcome).status;
}

std::string_view limit_name(ngx_http_request_t*, RequestState& s, ngx_pool_t*) {
  return s.exceeded == nullptr ? std::string_view{} : view(s.exceeded->name);
}

std::string_view retry_after(ngx_http_request_t*, RequestState& s, ngx_pool_t* pool) {
  return s.retry_after_s == 0 ? std::string_view{}
                              : print(pool, static_cast<uint64_t>(s.retry_after_s));
}

// What hangs on the body is asked for.
void note_asked(const RequestState& state) noexcept {
  if (state.known != nullptr) {
    state.known->note();
  }
}

std::string_view model(ngx_http_request_t* r, RequestState& s, ngx_pool_t*) {
  note_asked(s);
  return model_of(r->main, s);
}

// The model tokens that the request is reckoned to use, where its cost was reckoned; else how many
// requests it is.
std::string_view cost(ngx_http_request_t*, RequestState& s, ngx_pool_t* pool) {
  if (s.outcome == Outcome::kNone || is_refused(s.outcome)) {
    return "0";
  }
  const uint64_t tokens = s.cost[static_cast<size_t>(Unit::kTokens)];
  return print(pool, s.costed_in != nullptr && tokens != 0
                         ? tokens
                         : s.cost[static_cast<size_t>(Unit::kRequests)]);
}

std::string_view job_id(ngx_http_request_t*, RequestState& s, ngx_pool_t*) { return s.job_id(); }

// Seconds, with milliseconds, as Nginx writes times.
std::string_view wait(ngx_http_request_t*, RequestState& s, ngx_pool_t* pool) {
  if (s.job_id_size == 0) {
    return {};
  }
  auto* text = static_cast<u_char*>(ngx_pnalloc(pool, 32));
  if (text == nullptr) {
    return {};
  }
  const u_char* end = ngx_snprintf(text, 32, "%uL.%03uL", s.eta_ms / 1000, s.eta_ms % 1000);
  return {reinterpret_cast<char*>(text), static_cast<size_t>(end - text)};
}

// What is billed: what the request was settled by. Nothing where it never ran, or runs on as a
// promised job.
std::string_view billed(const RequestState& s, uint64_t amount, ngx_pool_t* pool) noexcept {
  return s.billed && s.job_id_size != 0 ? print(pool, amount) : std::string_view{};
}
std::string_view prompt_tokens(ngx_http_request_t*, RequestState& s, ngx_pool_t* pool) {
  return billed(s, s.prompt_tokens, pool);
}
std::string_view completion_tokens(ngx_http_request_t*, RequestState& s, ngx_pool_t* pool) {
  return billed(s, s.usage.tokens - s.prompt_tokens, pool);
}
std::string_view gpu_ms(ngx_http_request_t*, RequestState& s, ngx_pool_t* pool) {
  return billed(s, s.usage.gpu_ms, pool);
}

std::string_view queue_ms(ngx_http_request_t*, RequestState& s, ngx_pool_t* pool) {
  return billed(s, s.queue_us / 1000, pool);
}

std::string_view queue(ngx_http_request_t* r, RequestState& s, ngx_pool_t*) {
  const std::string_view name = view(loc_conf(r)->queue);
  return s.job_id_size == 0 ? std::string_view{} : name.empty() ? "default" : name;
}

// Whom an address is of: itself, or the /64 of an IPv6 one, as that is what one subscriber has (RFC
// 6177). An IPv4 address that came as IPv6 is itself.
std::string_view net_of(ngx_http_request_t* r) noexcept {
  constexpr size_t kNetBytes = 8;
  const auto* address = r->connection->sockaddr;
  if (address->sa_family != AF_INET6) {
    return view(r->connection->addr_text);
  }
  in6_addr ip = reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr;
  auto* text = static_cast<u_char*>(ngx_pnalloc(r->pool, NGX_INET6_ADDRSTRLEN + 3));
  if (text == nullptr) {
    return {};
  }
  u_char* end = nullptr;
  if (IN6_IS_ADDR_V4MAPPED(&ip)) {
    const u_char* b = ip.s6_addr + 12;
    end = ngx_sprintf(text, "%ud.%ud.%ud.%ud", ngx_uint_t{b[0]}, ngx_uint_t{b[1]}, ngx_uint_t{b[2]},
                      ngx_uint_t{b[3]});
  } else {
    ngx_memzero(ip.s6_addr + kNetBytes, sizeof ip.s6_addr - kNetBytes);
    end = text + ngx_inet6_ntop(ip.s6_addr, text, NGX_INET6_ADDRSTRLEN);
    end = ngx_cpymem(end, "/64", 3);
  }
  return {reinterpret_cast<char*>(text), static_cast<size_t>(end - text)};
}

struct Named {
  ngx_str_t name;
  Reader read;
};

const Named kVariables[] = {
    {ngx_string("penstock_tier"), tier},
    {ngx_string("penstock_status"), status},
    {ngx_string("penstock_limit_name"), limit_name},
    {ngx_string("penstock_retry_after"), retry_after},
    {ngx_string("penstock_model"), model},
    {ngx_string("penstock_cost"), cost},
    {ngx_string("penstock_job_id"), job_id},
    {ngx_string("penstock_wait"), wait},
    {ngx_string("penstock_queue"), queue},
    {ngx_string("penstock_prompt_tokens"), prompt_tokens},
    {ngx_string("penstock_completion_tokens"), completion_tokens},
    {ngx_string("penstock_gpu_ms"), gpu_ms},
    {ngx_string("penstock_queue_ms"), queue_ms},
};

void put(ngx_http_variable_value_t* v, std::string_view text) noexcept {
  v->not_found = text.empty() ? 1 : 0;
  v->valid = text.empty() ? 0 : 1;
  v->no_cacheable = 1;  // it changes as the request goes on
  v->len = static_cast<unsigned>(text.size()) & 0xFFFFFFF;
  v->data = reinterpret_cast<u_char*>(const_cast<char*>(text.data()));
}

ngx_int_t get(ngx_http_request_t* r, ngx_http_variable_value_t* v, uintptr_t data) noexcept {
  RequestState* state = state_of(r->main);
  put(v, state == nullptr ? std::string_view{} : kVariables[data].read(r, *state, r->pool));
  return NGX_OK;
}

ngx_int_t get_net(ngx_http_request_t* r, ngx_http_variable_value_t* v, uintptr_t) noexcept {
  put(v, net_of(r));
  return NGX_OK;
}

ngx_int_t get_session(ngx_http_request_t* r, ngx_http_variable_value_t* v, uintptr_t) noexcept {
  put(v, session_of(r));
  return NGX_OK;
}

using KeyReader = std::string_view (*)(const KnownKey& key);

const struct {
  ngx_str_t name;
  KeyReader read;
} kOfKeys[] = {
    {ngx_string("penstock_key_owner"), [](const KnownKey& key) { return key.owner; }},
    {ngx_string("penstock_key_tier"), [](const KnownKey& key) { return key.tier; }},
    {ngx_string("penstock_key_id"),
     [](const KnownKey& key) {
       return key.id[0] == 0 ? std::string_view{} : std::string_view(key.id.data(), key.id.size());
     }},
    {ngx_string("penstock_key_status"),
     [](const KnownKey& key) {
       constexpr std::string_view kWords[] = {"none", "known", "unknown", "expired"};
       return kWords[static_cast<size_t>(key.state)];
     }},
};

ngx_int_t get_of_key(ngx_http_request_t* r, ngx_http_variable_value_t* v, uintptr_t data) noexcept {
  const KnownKey* const key = known_key(r);
  put(v, key == nullptr ? std::string_view{} : kOfKeys[data].read(*key));
  return NGX_OK;
}

// $penstock_body_NAME: a field at the top level of the body.
ngx_int_t get_body_field(ngx_http_request_t* r, ngx_http_variable_value_t* v,
                         uintptr_t data) noexcept {
  const auto& variable = *reinterpret_cast<ngx_str_t*>(data);  // NOLINT(performance-no-int-to-ptr)
  RequestState* state = state_of(r->main);
  v->not_found = 1;
  v->valid = 0;
  v->no_cacheable = 1;
  if (state != nullptr) {
    note_asked(*state);
  }
  if (state == nullptr || !state->body_read) {
    if (state != nullptr) {
      state->body_wanted = true;
    }
    return NGX_OK;
  }
  const size_t place = place_of(*main_conf(r), view(variable).substr(kBodyVariable.size()));
  const http::BodyField field = body_of(r->main, state->search)[place];
  const std::string_view text = line_of(r->pool, field);
  if (text.empty()) {
    return text.data() == nullptr ? NGX_ERROR : NGX_OK;
  }
  v->not_found = 0;
  v->valid = 1;
  v->no_cacheable = 0;
  v->len = static_cast<unsigned>(text.size()) & 0xFFFFFFF;
  v->data = reinterpret_cast<u_char*>(const_cast<char*>(text.data()));
  return NGX_OK;
}

bool add(ngx_conf_t* cf, ngx_str_t name, ngx_http_get_variable_pt get, uintptr_t data = 0,
         ngx_uint_t flags = NGX_HTTP_VAR_NOCACHEABLE) noexcept {
  ngx_http_variable_t* variable = ngx_http_add_variable(cf, &name, flags);
  if (variable == nullptr) {
    return false;
  }
  variable->get_handler = get;
  variable->data = data;
  return true;
}

}  // namespace

ngx_int_t add_variables(ngx_conf_t* cf) noexcept {
  bool added = add(cf, str(kBodyVariable), get_body_field, 0, NGX_HTTP_VAR_PREFIX) &&
               add(cf, str("penstock_net"), get_net) &&
               add(cf, str("penstock_session"), get_session);
  for (size_t i = 0; i < std::size(kVariables); ++i) {
    added = added && add(cf, kVariables[i].name, get, i);
  }
  for (size_t i = 0; i < std::size(kOfKeys); ++i) {
    added = added && add(cf, kOfKeys[i].name, get_of_key, i);
  }
  return added ? NGX_OK : NGX_ERROR;
}

}  // namespace penstock
