#include "ngx_module/pages/challenge_answer.h"

#include "ngx_module/challenge/provider.h"
#include "ngx_module/challenge/token.h"
#include "ngx_module/conf/text.h"
#include "ngx_module/lease/shared_secret.h"
#include "ngx_module/reply/page.h"
#include "ngx_module/request/headers.h"
#include "ngx_module/request/session.h"
#include "ngx_module/request/suspend.h"
#include "shared/http/query.h"

namespace penstock {
namespace {

constexpr size_t kMostBytes = 20 << 10;

// Of the form. hCaptcha's widget sends its token twice.
size_t most_bytes(const ngx_http_request_t* r) noexcept {
  return loc_conf(r)->challenging.provider == nullptr ? http::Query::kMaxBytes : kMostBytes;
}

ngx_int_t refuse(ngx_http_request_t* r, int status, std::string_view detail,
                 std::string_view code) noexcept {
  return refuse_page(r, {.status = status, .detail = detail, .code = code});
}

// A place of this host: no other host's, which "//host" is, and "/\\host" for browsers.
bool is_own_path(std::string_view to) noexcept {
  return to.starts_with('/') && !to.starts_with("//") && !to.starts_with("/\\") &&
         std::none_of(to.begin(), to.end(), is_control);
}

// The limit by which the challenge was issued, and by which keys; nullptr: none of ours.
const Limit* limit_of(ngx_http_request_t* r, const challenge::Holder& holder,
                      const challenge::Keys*& keys) noexcept {
  for (const Limit* limit : main_conf(r)->limits) {
    keys = limit->action == Action::kChallenge ? keys_of(*limit, holder) : nullptr;
    if (keys != nullptr) {
      return limit;
    }
  }
  return nullptr;
}

// The limit's key may have another value here than where it stands. For whom the challenge is has
// been signed, and the pass is good there for nobody else.
Answered take(ngx_http_request_t* r, std::string_view payload) noexcept {
  const auto solution = challenge::read_solution(payload);
  const challenge::Keys* keys = nullptr;
  const Limit* const limit = solution ? limit_of(r, solution->holder(), keys) : nullptr;
  return limit != nullptr ? take_answer(r, *limit, *keys, solution->holder(), *solution)
                          : Answered::kWrong;
}

// The limit by which a provider's page was given, for whom, and by which keys; nullptr: none.
const Limit* limit_of(ngx_http_request_t* r, std::string_view ticket, challenge::Holder& holder,
                      const challenge::Keys*& keys) noexcept {
  for (const Limit* limit : main_conf(r)->limits) {
    if (limit->action != Action::kChallenge) {
      continue;
    }
    for (const challenge::Keys& each : keys_of(*limit->zone)) {
      const auto read = challenge::read_pass(each, ticket, ngx_time(), challenge::Kind::kTicket);
      if (read && holder_of(*limit, each, "").limit == read->holder.limit) {
        holder = read->holder;
        keys = &each;
        return limit;
      }
    }
  }
  return nullptr;
}

ngx_int_t send_on(ngx_http_request_t* r, std::string_view to) noexcept {
  const ngx_str_t place = copy(r->pool, to);
  ngx_http_clear_location(r);
  r->headers_out.location = place.data == nullptr ? nullptr : push_header(r, "Location", place);
  return r->headers_out.location == nullptr ? NGX_HTTP_INTERNAL_SERVER_ERROR : NGX_HTTP_SEE_OTHER;
}

ngx_int_t tell(ngx_http_request_t* r, Answered answered, std::string_view to) noexcept {
  switch (answered) {
    case Answered::kRight:
      return send_on(r, to);
    case Answered::kNoRoom:
      return refuse_page(r, {.status = 503,
                             .detail = "Too many callers at once.",
                             .code = "busy",
                             .retry_after_s = 10});
    case Answered::kBusy:
      return refuse_page(r, {.status = 503,
                             .detail = "Too many answers are being checked at once.",
                             .code = "busy",
                             .retry_after_s = 1});
    case Answered::kAsked:
      return NGX_AGAIN;
    case Answered::kWrong:
      break;
  }
  return refuse(r, 403,
                "This answer is wrong, too old, used already or another's: ask again for what you "
                "wanted, and solve the new challenge.",
                "challenge_required");
}

// A form whose token a provider is asked about, in the request's pool.
struct Waiting {
  challenge::Holder holder;
  const challenge::Keys* keys = nullptr;
  ngx_str_t to{};
};

// Nobody knows of its token: where it leads to, on_error= is heeded.
ngx_int_t tell_of_check(ngx_http_request_t* r, RequestState& state,
                        const Waiting& waiting) noexcept {
  const Answered answered = settle_check(r, *state.check, *waiting.keys, waiting.holder);
  const bool away = state.check->verdict == wire::Verdict::kUnknown;
  if (!away || loc_conf(r)->challenging.provider->on_away == OnAway::kDeny) {
    return tell(r, answered, view(waiting.to));
  }
  return note_away(r, *waiting.keys, waiting.holder) ? send_on(r, view(waiting.to))
                                                     : NGX_HTTP_INTERNAL_SERVER_ERROR;
}

void on_checked(ngx_http_request_t* r) noexcept {
  RequestState& state = *find_state(r);
  if (!state.check->over) {
    return stay_suspended(r);
  }
  r->write_event_handler = ngx_http_request_empty_handler;
  ngx_http_finalize_request(
      r, tell_of_check(r, state, *static_cast<const Waiting*>(state.check->form)));
}

ngx_int_t take_token(ngx_http_request_t* r, const http::Query& form, std::string_view token,
                     std::string_view to) noexcept {
  RequestState* state = state_of(r);
  auto* waiting = make<Waiting>(r->pool);
  if (state == nullptr || waiting == nullptr) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  const Limit* const limit =
      limit_of(r, form.get("ticket").value_or(""), waiting->holder, waiting->keys);
  waiting->to = copy(r->pool, to);
  const Answered asked = limit == nullptr || waiting->to.data == nullptr
                             ? Answered::kWrong
                             : ask_about(r, *state, *limit, waiting->holder, token);
  if (asked != Answered::kAsked) {
    return tell(r, asked, to);
  }
  state->check->form = waiting;
  if (state->check->over) {
    return tell_of_check(r, *state, *waiting);
  }
  return suspend_phases(r, on_checked) ? NGX_AGAIN : NGX_HTTP_INTERNAL_SERVER_ERROR;
}

// Nginx may have put it into a file.
ngx_int_t read_form(ngx_http_request_t* r, char* body, size_t& size) noexcept {
  for (const ngx_chain_t* link = r->request_body->bufs; link != nullptr; link = link->next) {
    ngx_buf_t* const buf = link->buf;
    const auto more = static_cast<size_t>(ngx_buf_size(buf));
    if (more > most_bytes(r) - size) {
      return NGX_HTTP_REQUEST_ENTITY_TOO_LARGE;
    }
    auto* const to = reinterpret_cast<u_char*>(body + size);
    if (ngx_buf_in_memory(buf)) {
      ngx_memcpy(to, buf->pos, more);
    } else if (more > 0 &&
               ngx_read_file(buf->file, to, more, buf->file_pos) != static_cast<ssize_t>(more)) {
      return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    size += more;
  }
  return NGX_OK;
}

ngx_int_t answer(ngx_http_request_t* r) noexcept {
  char body[kMostBytes];
  size_t size = 0;
  if (const ngx_int_t rc = read_form(r, body, size); rc != NGX_OK) {
    return rc;
  }
  const auto form = http::Query::parse({body, size}, most_bytes(r));
  const std::string_view to = form ? form->get("to").value_or("/") : "";
  if (!is_own_path(to)) {
    return refuse(r, 400,
                  "A form with altcha=ANSWER and to=PATH is wanted, whose path begins with one /.",
                  "invalid_request");
  }
  const ChallengeProvider* const provider = loc_conf(r)->challenging.provider;
  const auto token =
      provider == nullptr ? std::nullopt : form->get(known_provider(provider->kind).field);
  return token ? take_token(r, *form, *token, to)
               : tell(r, take(r, form->get("altcha").value_or("")), to);
}

// NGX_AGAIN: it waits for what a provider says.
void on_body(ngx_http_request_t* r) noexcept {
  if (const ngx_int_t rc = answer(r); rc != NGX_AGAIN) {
    ngx_http_finalize_request(r, rc);
  }
}

ngx_int_t verify(ngx_http_request_t* r) noexcept {
  if (const ngx_int_t rc = check_method(r, NGX_HTTP_POST, "POST"); rc != NGX_DECLINED) {
    return rc;
  }
  if (!is_from_here(r)) {
    return refuse(r, 403, "A page of another site may not answer for this one.", "forbidden");
  }
  if (r->headers_in.content_length_n > static_cast<off_t>(most_bytes(r))) {
    return NGX_HTTP_REQUEST_ENTITY_TOO_LARGE;
  }
  r->request_body_in_single_buf = 1;
  const ngx_int_t rc = ngx_http_read_client_request_body(r, on_body);
  return rc >= NGX_HTTP_SPECIAL_RESPONSE ? rc : NGX_DONE;
}

}  // namespace

char* read_verify(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  return set_page(cf, *static_cast<LocConf*>(conf), verify);
}

}  // namespace penstock
