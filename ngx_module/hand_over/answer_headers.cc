#include "ngx_module/hand_over/answer_headers.h"

#include "ngx_module/conf/text.h"
#include "ngx_module/reply/reply.h"
#include "shared/base/job_id.h"
#include "shared/http/inert_type.h"

namespace penstock {
namespace {

constexpr std::string_view kOfRefusals[] = {"Allow", "Accept-Encoding"};

bool of_refusals(std::string_view name) noexcept {
  return std::any_of(std::begin(kOfRefusals), std::end(kOfRefusals),
                     [&](std::string_view known) { return http::same_name(known, name); });
}

ngx_int_t push_lines(ngx_http_request_t* r, RequestState& state, std::string_view lines,
                     bool (*allowed)(std::string_view name)) noexcept {
  if (lines.empty()) {
    return NGX_OK;
  }
  const ngx_str_t kept = copy(r->pool, lines);
  if (kept.data == nullptr) {
    return NGX_ERROR;
  }
  std::string_view rest = view(kept);
  for (size_t count = 0; !rest.empty(); ++count) {
    http::HeaderLine line;
    const char* error =
        count == http::kMaxHeaderLines ? "too many headers" : http::next_header_line(rest, line);
    if (error != nullptr) {
      ngx_log_error(NGX_LOG_ERR, r->connection->log, 0, "penstockd sent an invalid frame: %s",
                    error);
      return NGX_HTTP_UPSTREAM_INVALID_HEADER;
    }
    if ((allowed == nullptr || allowed(line.name)) &&
        !state.push_answer_header(r, line.name, str(line.value))) {
      return NGX_ERROR;
    }
  }
  return NGX_OK;
}

// The job that the answer is of: told of when it was submitted, or the one that is asked about.
std::optional<JobId> job_of(ngx_http_request_t* r, const RequestState& state) noexcept {
  if (state.job_id_size > 0) {
    return parse_job_id(state.job_id());
  }
  const std::string_view prefix = view(loc_conf(r)->jobs_path);
  std::string_view path = view(r->uri);
  path.remove_prefix(std::min(prefix.size() + 1, path.size()));
  return parse_job_id(path.substr(0, path.find('/')));
}

// A name of ours: nothing that a caller or an engine has said is in it, and no system runs it.
ngx_str_t disposition(ngx_http_request_t* r, const RequestState& state) noexcept {
  constexpr std::string_view kBefore = "attachment; filename=\"";
  const std::optional<JobId> job = job_of(r, state);
  char text[kBefore.size() + JobId::kBytes + 8];
  const char* const end =
      Text(text).raw(kBefore).raw(job ? job->view() : "result").raw(".bin\"").at();
  return copy(r->pool, {text, static_cast<size_t>(end - text)});
}

// Milliseconds, to the microsecond.
Text& add_ms(Text& text, uint64_t us) noexcept {
  const uint64_t part = us % 1000;
  text.number(us / 1000).literal(".");
  return text.number(part / 100).number(part / 10 % 10).number(part % 10);
}

bool has_answer_header(const RequestState& state, std::string_view name) noexcept {
  return std::any_of(
      state.answer_headers, state.answer_headers + state.answer_header_count,
      [&](const ngx_table_elt_t* header) { return http::same_name(view(header->key), name); });
}

}  // namespace

bool push_answer_headers(ngx_http_request_t* r, RequestState& state,
                         int64_t retry_after_s) noexcept {
  if (state.job_id_size > 0 &&
      !state.push_answer_header(r, "Penstock-Job-Id", str(state.job_id()))) {
    return false;
  }
  return retry_after_s <= 0 ||
         push_retry(r->pool, retry_after_s, [&](std::string_view name, ngx_str_t value) noexcept {
           return state.push_answer_header(r, name, value);
         });
}

ngx_int_t push_given_headers(ngx_http_request_t* r, RequestState& state,
                             std::string_view lines) noexcept {
  return push_lines(r, state, lines, nullptr);
}

ngx_int_t push_refusal_headers(ngx_http_request_t* r, RequestState& state,
                               std::string_view lines) noexcept {
  return push_lines(r, state, lines, of_refusals);
}

bool push_timing(ngx_http_request_t* r, RequestState& state, const wire::Head& head) noexcept {
  constexpr std::string_view kNames = "limit;dur=.000, queue;dur=.000, run;dur=.000";
  char bytes[kNames.size() + 3 * Text::kMaxDigits];
  Text text(bytes);
  add_ms(text.literal("limit;dur="), static_cast<uint64_t>(state.limit_ns / kNsPerUs));
  if (head.run_us != 0) {  // else nobody told
    add_ms(text.literal(", queue;dur="), head.queue_us);
    add_ms(text.literal(", run;dur="), head.run_us);
  }
  const ngx_str_t value = copy(r->pool, {bytes, static_cast<size_t>(text.at() - bytes)});
  return value.data != nullptr && state.push_answer_header(r, "Server-Timing", value);
}

bool push_guards(ngx_http_request_t* r, RequestState& state, std::string_view type,
                 bool streams) noexcept {
  if (!state.push_answer_header(r, "X-Content-Type-Options", str("nosniff")) ||
      !state.push_answer_header(r, "Content-Security-Policy",
                                str("sandbox; default-src 'none'; style-src 'unsafe-inline'; "
                                    "img-src data:")) ||
      !state.push_answer_header(r, "Cross-Origin-Resource-Policy", str("same-origin"))) {
    return false;
  }
  // Events that are being made are for programs: no browser shows them.
  if (http::is_inert_type(type) || (streams && state.answer_is_events)) {
    return true;
  }
  const ngx_str_t saved = disposition(r, state);
  return saved.data != nullptr && state.push_answer_header(r, "Content-Disposition", saved);
}

bool push_stream_headers(ngx_http_request_t* r, RequestState& state) noexcept {
  return state.push_answer_header(r, "X-Accel-Buffering", str("no")) &&
         (has_answer_header(state, "Cache-Control") ||
          state.push_answer_header(r, "Cache-Control", str("no-store")));
}

}  // namespace penstock
