#include "ngx_module/hand_over/edge_line.h"

#include <algorithm>

#include "ngx_module/admit/status_source.h"
#include "ngx_module/hand_over/receipt_codec.h"
#include "ngx_module/lease/lessee.h"
#include "ngx_module/lease/shared_secret.h"
#include "ngx_module/request/frame_socket.h"
#include "ngx_module/request/telemetry.h"
#include "shared/base/clock.h"
#include "shared/base/unix_socket.h"
#include "shared/base/version.h"
#include "shared/wire/receipt.h"

namespace penstock {
namespace {

constexpr ngx_msec_t kFirstPauseMs = 100;
constexpr ngx_msec_t kLongestPauseMs = 5000;
constexpr ngx_msec_t kPatienceMs = 30'000;
constexpr ngx_msec_t kBriefingMs = 5000;  // by then a line that came back has been told of all
constexpr ngx_msec_t kLooksMs = 3000;     // so long the first line waits for the Redis of limits
constexpr ngx_msec_t kLookEveryMs = 20;
constexpr size_t kMostHeld = 100'000;
// HOLD and OVER carry a receipt and little else.
constexpr size_t kBufferBytes = 40U << 10;
static_assert(kBufferBytes >= wire::kMaxReceiptBytes + (8U << 10));
// SETTLED frames that wait for the socket.
constexpr size_t kAnswerBytes = 16U << 10;

// A promised job that holds something here.
struct Held {
  ngx_rbtree_node_t node;  // key: a hash of the number; first, so that a node is its Held
  uint64_t number;         // the job's, on its line
  ngx_uint_t round;        // of the line, when it was named last
  HeldReceipt* receipt;
};

struct EdgeLine {
  const MainConf* main = nullptr;
  FrameSocket socket;
  ngx_event_t* timer = nullptr;  // to connect again, or to forget what was not named again
  ngx_rbtree_t tree{};
  ngx_rbtree_node_t sentinel{};
  size_t held = 0;
  ngx_uint_t round = 0;  // connections so far
  ngx_msec_t pause_ms = kFirstPauseMs;
  ngx_msec_t broken_at = 0;  // 0: it is up
  ngx_msec_t looks = 0;      // how long it has waited for the Redis of limits
  bool lacks = false;        // and said that it can settle nothing of others, for want of that
  FramesIn<kBufferBytes> in;
  FramesOut<kAnswerBytes> answers;
};

struct Lines {
  PoolArray<EdgeLine*> all;
};

ngx_rbtree_key_t key_of(uint64_t number) noexcept {
  return static_cast<ngx_rbtree_key_t>(number * 0x9E3779B97F4A7C15);
}

Held* find(EdgeLine& line, uint64_t number) noexcept {
  const ngx_rbtree_key_t key = key_of(number);
  ngx_rbtree_node_t* node = line.tree.root;
  while (node != &line.sentinel) {
    if (node->key == key) {
      return reinterpret_cast<Held*>(node);  // the hash is one to one
    }
    node = key < node->key ? node->left : node->right;
  }
  return nullptr;
}

// Its leases are let go here, also where the job is alive still: whoever is told of it next goes by
// the receipt, which knows nothing of what was renewed here, and takes them anew. Both together
// would count the job twice until these lapsed.
void drop(EdgeLine& line, Held* held) noexcept {
  release(receipt_of(*held->receipt));
  forget_receipt(held->receipt);
  ngx_rbtree_delete(&line.tree, &held->node);
  ngx_free(held);
  --line.held;
}

void hold(EdgeLine& line, uint64_t number, std::string_view bytes) noexcept {
  if (Held* known = find(line, number); known != nullptr) {
    known->round = line.round;
    return;
  }
  if (line.held == kMostHeld) {
    return;
  }
  HeldReceipt* receipt = decode_receipt(*line.main, bytes, Part::kOwn, ngx_cycle->log);
  auto* held =
      receipt == nullptr ? nullptr : static_cast<Held*>(ngx_calloc(sizeof(Held), ngx_cycle->log));
  if (held == nullptr) {
    if (receipt != nullptr) {
      forget_receipt(receipt);
    }
    return;
  }
  held->node.key = key_of(number);
  held->number = number;
  held->round = line.round;
  held->receipt = receipt;
  ngx_rbtree_insert(&line.tree, &held->node);
  ++line.held;
  hold_leases(*receipt);
}

// What does not fit then is told again to the next line.
void answer(EdgeLine& line, uint64_t number) noexcept {
  if (!line.answers.put(number, wire::Settled{}) &&
      line.answers.flush(line.socket.peer.connection)) {
    line.answers.put(number, wire::Settled{});
  }
}

void settle_by(EdgeLine& line, Receipt& receipt, const wire::Over& over) noexcept {
  if (over.refund == wire::Over::kAllRefunded) {
    refund(receipt, true);
  } else if (over.refund != wire::Over::kNoneRefunded) {
    const Usage usage = usage_of(over);
    // How long its prompt was in bytes is not known any more.
    if (over.estimated == 0) {
      learn(*line.main, over.model, 0, 0, std::min(over.completion_tokens, kMostUsed),
            usage.gpu_ms);
    }
    settle(receipt, usage);
  }
}

void settle_part(EdgeLine& line, const wire::Over& over, Part part) noexcept {
  HeldReceipt* receipt = decode_receipt(*line.main, over.receipt, part, ngx_cycle->log);
  if (receipt != nullptr) {
    settle_by(line, receipt_of(*receipt), over);
    forget_receipt(receipt);
  }
}

// What was charged under limits in Redis another edge has settled.
void settle_rest(EdgeLine& line, uint64_t number, const wire::Over& over) noexcept {
  if (Held* held = find(line, number); held != nullptr) {
    drop(line, held);
  }
  answer(line, number);
  HeldReceipt* rest = decode_receipt(*line.main, over.receipt, Part::kUnsealed, ngx_cycle->log);
  if (rest == nullptr) {
    return;
  }
  Receipt& receipt = receipt_of(*rest);
  if (mark_settled(*receipt.latest->table, view(line.socket.name), number, over.receipt) !=
      limit::Outcome::refused) {
    settle_by(line, receipt, over);
  }
  forget_receipt(rest);
}

void settle_own(EdgeLine& line, uint64_t number, const wire::Over& over) noexcept {
  hold(line, number, over.receipt);  // it may have ended before it was named
  Held* held = find(line, number);
  if (held == nullptr && line.held == kMostHeld) {
    return;  // it is told again
  }
  answer(line, number);
  if (held == nullptr) {
    return;  // nothing that it was charged is here any more
  }
  Receipt& receipt = receipt_of(*held->receipt);
  // penstockd tells of it again within seconds of a broken line, or of its start. Where there is no
  // room to note it, it is settled all the same.
  if (mark_settled(*receipt.latest->table, view(line.socket.name), number, over.receipt) ==
      limit::Outcome::refused) {
    return drop(line, held);
  }
  settle_by(line, receipt, over);
  drop(line, held);
}

void settle_job(EdgeLine& line, uint64_t number, const wire::Over& over) noexcept {
  const bool is_ours = number < wire::Over::kOfOthers;
  if (over.sealed == wire::Over::kAnywhere) {
    settle_part(line, over, is_ours ? Part::kOthers : Part::kSealed);
  }
  if (!is_ours) {
    answer(line, number);
  } else if (over.sealed == wire::Over::kElsewhere) {
    settle_rest(line, number, over);
  } else {
    settle_own(line, number, over);
  }
}

// What was not named again since the line came back is not alive any more, or somebody else's.
void forget_stale(EdgeLine& line) noexcept {
  if (line.held == 0) {
    return;
  }
  ngx_rbtree_node_t* node = ngx_rbtree_min(line.tree.root, &line.sentinel);
  while (node != nullptr) {
    auto* held = reinterpret_cast<Held*>(node);
    node = ngx_rbtree_next(&line.tree, node);  // stays where it is in memory, whoever leaves
    if (held->round != line.round || line.broken_at != 0) {
      drop(line, held);
    }
  }
}

void close_line(EdgeLine& line) noexcept {
  line.socket.close();
  line.in.size = line.answers.size = 0;
}

void break_line(EdgeLine& line) noexcept {
  close_line(line);
  if (line.broken_at == 0) {
    line.broken_at = ngx_current_msec == 0 ? 1 : ngx_current_msec;
  }
  if (ngx_exiting != 0) {
    return forget_stale(line);  // the worker that comes after this one is told of them
  }
  ngx_add_timer(line.timer, line.pause_ms);
  line.pause_ms = ngx_min(line.pause_ms * 2, kLongestPauseMs);
}

// False: a rule was broken.
bool on_frame(EdgeLine& line, const wire::Frame& frame) noexcept {
  switch (frame.header.type) {
    case wire::FrameType::kHold: {
      wire::Hold message;
      if (wire::parse(frame.payload, message) != nullptr) {
        return false;
      }
      hold(line, frame.header.id, message.receipt);
      return true;
    }
    case wire::FrameType::kOver: {
      wire::Over message;
      if (wire::parse(frame.payload, message) != nullptr) {
        return false;
      }
      settle_job(line, frame.header.id, message);
      return true;
    }
    case wire::FrameType::kGoodbye:
      return true;  // it closes now, and is connected to again
    default:
      return false;
  }
}

void on_read(ngx_event_t* event) noexcept {
  auto* c = static_cast<ngx_connection_t*>(event->data);
  auto& line = *static_cast<EdgeLine*>(c->data);
  if (c->close != 0) {  // Nginx closes what is idle, to exit
    return break_line(line);
  }
  for (;;) {
    const ssize_t n = line.in.receive(c);
    if (n == NGX_AGAIN) {
      break;
    }
    if (n <= 0) {
      return break_line(line);
    }
    if (!line.in.take(
            [&line](const wire::Frame& frame) noexcept { return on_frame(line, frame); })) {
      ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0, "penstockd at %V broke the protocol",
                    &line.socket.name);
      return break_line(line);
    }
    if (line.broken_at != 0) {
      line.broken_at = 0;
      line.pause_ms = kFirstPauseMs;
    }
  }
  if (!line.answers.flush(c) || ngx_handle_read_event(event, 0) != NGX_OK) {
    break_line(line);
  }
}

void on_write(ngx_event_t* event) noexcept {
  auto* c = static_cast<ngx_connection_t*>(event->data);
  auto& line = *static_cast<EdgeLine*>(c->data);
  if (!line.answers.flush(c)) {
    break_line(line);
  }
}

// The first zone whose limits are in Redis; nullptr: there is none.
const Zone* shared_zone(const MainConf& main) noexcept {
  const auto* const found =
      std::find_if(main.zones.begin(), main.zones.end(),
                   [](const Zone* zone) noexcept { return zone->sharing != nullptr; });
  return found == main.zones.end() ? nullptr : *found;
}

// Whether what others have charged under limits in Redis can be settled here: of all such zones.
bool knows_others(const MainConf& main) noexcept {
  return std::all_of(main.zones.begin(), main.zones.end(), [](Zone* zone) noexcept {
    return zone->sharing == nullptr || (seal_key_of(*zone) != nullptr &&
                                        static_cast<Lessee*>(zone->lessor)->up(monotonic_ns()));
  });
}

bool say_hello(EdgeLine& line) noexcept {
  ngx_connection_t* const c = line.socket.peer.connection;
  const Zone* const shared = shared_zone(*line.main);
  wire::Hello hello;
  hello.settles = shared != nullptr && !line.lacks ? 1 : 0;
  hello.nginx = shared != nullptr ? table_of(*shared) : 0;
  hello.version = wire::kVersion;
  hello.role = static_cast<uint64_t>(wire::Role::kEdge);
  hello.name = version();
  char bytes[256];
  if (wire::encoded_size(hello) > sizeof bytes) {
    return false;
  }
  const char* end = wire::encode(bytes, 0, hello);
  const ssize_t size = end - bytes;
  return c->send(c, reinterpret_cast<u_char*>(bytes), static_cast<size_t>(size)) == size;
}

void open_line(EdgeLine& line) noexcept {
  // What is told first may be settled only once: it waits a moment for what that takes.
  line.lacks = !knows_others(*line.main);
  if (line.lacks && line.looks < kLooksMs) {
    line.looks += kLookEveryMs;
    return ngx_add_timer(line.timer, kLookEveryMs);
  }
  // That it is not there is told where jobs fail.
  if (!line.socket.open(&line, on_read, on_write) || !say_hello(line)) {
    return break_line(line);
  }
  ++line.round;
  line.pause_ms = kFirstPauseMs;
  ngx_add_timer(line.timer, kBriefingMs);
}

// Connects, or, once it has been up for a while, forgets what was not named again. What it lacked
// as it connected may be known by now: then it does so anew.
void on_timer(ngx_event_t* event) noexcept {
  auto& line = *static_cast<EdgeLine*>(event->data);
  if (line.socket.peer.connection != nullptr) {
    line.broken_at = 0;
    forget_stale(line);
    if (!line.lacks || ngx_exiting != 0) {
      return;
    }
    if (!knows_others(*line.main)) {
      return ngx_add_timer(line.timer, kBriefingMs);
    }
    close_line(line);
  }
  if (line.held > 0 && line.broken_at != 0 && ngx_current_msec - line.broken_at > kPatienceMs) {
    forget_stale(line);
  }
  if (ngx_exiting == 0) {
    open_line(line);
  }
}

EdgeLine* make_line(ngx_cycle_t* cycle, const MainConf& main, const StatusSource& source) noexcept {
  void* memory = ngx_pcalloc(cycle->pool, sizeof(EdgeLine));
  auto* timer = static_cast<ngx_event_t*>(ngx_pcalloc(cycle->pool, sizeof(ngx_event_t)));
  const std::string_view socket = view(source.socket);
  const auto address = unix_address(socket);
  if (memory == nullptr || timer == nullptr || !address) {
    return nullptr;
  }
  auto* line = new (memory) EdgeLine;
  line->main = &main;
  line->socket.address = *address;
  line->socket.name = str(socket);
  line->timer = timer;
  timer->handler = on_timer;
  timer->data = line;
  timer->log = cycle->log;
  timer->cancelable = 1;
  ngx_rbtree_init(&line->tree, &line->sentinel, ngx_rbtree_insert_value);
  return line;
}

Lines*& lines() noexcept {
  static Lines* of_this_process = nullptr;
  return of_this_process;
}

}  // namespace

ngx_int_t start_edge_lines(ngx_cycle_t* cycle) noexcept {
  MainConf* main = main_conf(cycle);
  if (main == nullptr || main->sources.empty() || main->zones.empty() || ngx_worker != 0) {
    return NGX_OK;
  }
  auto* mine = make<Lines>(cycle->pool);
  if (mine == nullptr) {
    return NGX_ERROR;
  }
  for (const StatusSource* source : main->sources) {
    EdgeLine* line = make_line(cycle, *main, *source);
    if (line == nullptr || mine->all.push(cycle->pool, line) == nullptr) {
      return NGX_ERROR;
    }
    ngx_add_timer(line->timer, 1);
  }
  lines() = mine;
  return NGX_OK;
}

void stop_edge_lines(ngx_cycle_t*) noexcept {
  if (lines() == nullptr) {
    return;
  }
  for (EdgeLine* line : lines()->all) {
    close_line(*line);
    if (line->timer->timer_set) {
      ngx_del_timer(line->timer);
    }
    line->broken_at = 1;
    forget_stale(*line);
  }
  lines() = nullptr;
}

}  // namespace penstock
