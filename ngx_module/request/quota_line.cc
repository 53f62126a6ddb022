#include "ngx_module/request/quota_line.h"

#include "ngx_module/request/frame_socket.h"
#include "shared/base/unix_socket.h"

namespace penstock {
namespace {

constexpr size_t kInBytes = 4096;  // GOODBYE alone comes
constexpr size_t kOutBytes = 16U << 10;

}  // namespace

struct QuotaLine {
  FrameSocket socket;
  FramesIn<kInBytes> in;
  FramesOut<kOutBytes> out;
};

namespace {

void break_line(QuotaLine& line) noexcept {
  line.socket.close();
  line.in.size = line.out.size = 0;
}

void on_read(ngx_event_t* event) noexcept {
  auto* c = static_cast<ngx_connection_t*>(event->data);
  auto& line = *static_cast<QuotaLine*>(c->data);
  ssize_t n = 0;
  while (c->close == 0 && (n = line.in.receive(c)) > 0) {
    line.in.size = 0;
  }
  if (c->close != 0 || n != NGX_AGAIN || ngx_handle_read_event(event, 0) != NGX_OK) {
    break_line(line);
  }
}

void on_write(ngx_event_t* event) noexcept {
  auto* c = static_cast<ngx_connection_t*>(event->data);
  auto& line = *static_cast<QuotaLine*>(c->data);
  if (!line.out.flush(c)) {
    break_line(line);
  }
}

bool tell(QuotaLine& line, const wire::QuotaNotice& notice) noexcept {
  const bool is_open = line.socket.peer.connection != nullptr;
  if (!is_open &&
      (!line.socket.open(&line, on_read, on_write) ||
       !line.out.put(0, wire::Hello{.version = wire::kVersionOfQuota,
                                    .role = static_cast<uint64_t>(wire::Role::kCaller)}))) {
    return false;
  }
  if (!line.out.put(0, notice)) {
    return false;
  }
  if (!line.out.flush(line.socket.peer.connection)) {
    break_line(line);
    return false;
  }
  return true;
}

}  // namespace

bool add_quota_line(ngx_pool_t* pool, MainConf& main, std::string_view socket) noexcept {
  void* memory = ngx_pcalloc(pool, sizeof(QuotaLine));
  const auto address = unix_address(socket);
  if (memory == nullptr || !address) {
    return false;
  }
  auto* line = new (memory) QuotaLine;
  line->socket.address = *address;
  line->socket.name = copy(pool, socket);
  return line->socket.name.data != nullptr && main.quota_lines.push(pool, line) != nullptr;
}

void tell_quota(const MainConf& main, const wire::QuotaNotice& notice) noexcept {
  for (QuotaLine* line : main.quota_lines) {
    if (tell(*line, notice)) {
      return;
    }
  }
}

}  // namespace penstock
