#include "worker/queue/jobs/queue_news.h"

namespace penstock::queue {

std::string news_text(const QueueNews& news, const JobView& view) {
  std::string text = ": ";
  text.append(name_of(view.status));
  const auto add = [&](std::string_view name, int64_t number) {
    text.append(" ").append(name).append("=").append(std::to_string(number));
  };
  if (view.position > 0) {
    add("position", view.position);
  }
  if (view.eta_seconds) {
    add("eta", *view.eta_seconds);
  } else if (!view.eta_reason.empty()) {
    text.append(" reason=").append(view.eta_reason);
  }
  if (view.eta_range) {
    text.append(" range=" + std::to_string(view.eta_range->soon) + "-" +
                std::to_string(view.eta_range->late));
  }
  text.append("\n\n");
  if (news.events) {
    text.append("event: queue\ndata: ").append(render(view)).append("\n\n");
  }
  return text;
}

}  // namespace penstock::queue
