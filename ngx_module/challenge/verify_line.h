// Verify line: over which a worker process asks a penstockd whether a provider's token is good.
//
// It is opened by the first question, and kept. A question is answered once: by VERIFIED; as one
// that nobody knows, when the line breaks, or after kPatienceMs, which breaks it; or at once as
// kBusy, when it does not fit into what waits for the socket. A penstockd that is too old says
// GOODBYE to this line's HELLO, and so breaks it.
//
// A line that broke, or did not know, rests for kRestMs: others are asked first. One that was
// silent for too long is not asked at all meanwhile.
#pragma once

#include <span>

#include "ngx_module/conf/conf.h"
#include "shared/wire/messages.h"

namespace penstock {

struct VerifyLine;

// The line to a Unix socket, one per socket in the whole configuration. nullptr when memory ran
// out.
VerifyLine* verify_line_of(ngx_conf_t* cf, std::string_view socket) noexcept;

// A question of a request, in its pool.
struct TokenCheck {
  ngx_http_request_t* r = nullptr;
  const Limit* limit = nullptr;  // that the token is to open
  bool over = false;             // and `verdict` is known
  bool settled = false;          // and has been acted on
  wire::Verdict verdict = wire::Verdict::kUnknown;
  const void* form = nullptr;  // that brought it (pages/challenge_answer.cc)

  VerifyLine* line = nullptr;  // while it is under way
  ngx_queue_t link{};
  uint64_t id = 0;
  ngx_event_t timer{};
};

// Asks the first of the lines that is up, and does not rest if there is such a one. It may be over
// at once; else the request's write event is posted when it is. nullptr when memory ran out.
TokenCheck* ask_about_token(ngx_http_request_t* r, const PoolArray<VerifyLine*>& lines,
                            const wire::Verify& question) noexcept;

}  // namespace penstock
