#include "shared/redis/servers.h"

#include <algorithm>
#include <utility>

#include "shared/base/clock.h"

namespace penstock::redis {
namespace {

constexpr size_t kMostServers = 1024;       // that are known at once
constexpr int64_t kHeldNs = 3 * kNsPerSec;  // hosts ask each second

}  // namespace

struct Servers::Server final : Connection::User {
  Server(Servers& all, const Address& address)
      : servers(all), loop(all.make_loop_()), connection(all.settings_, address, *loop, *this) {}

  void on_ready(Connection&) noexcept override {
    if (servers.has_all()) {
      servers.user_.on_ready("Redis at " + text_of(connection.address()));
    }
  }
  void on_lost(Connection&, std::string_view why) noexcept override {
    if (has_slots) {
      servers.user_.on_lost(why);
    }
    if (servers.guide_ != nullptr) {
      servers.guide_->doubt();
    }
  }
  void on_hosts(Connection&, uint64_t count) noexcept override {
    hosts = count;
    servers.tell_hosts();
  }
  Connection* on_moved(Connection&, std::string_view error) noexcept override {
    return servers.moved(connection, error);
  }

  Servers& servers;
  std::unique_ptr<Loop> loop;
  Connection connection;
  uint64_t hosts = 0;  // that it was told of
  bool has_slots = false;
};

Servers::Servers(Settings settings, Whereabouts where, MakeLoop make_loop, User& user)
    : settings_(std::move(settings)),
      where_(std::move(where)),
      prefix_(settings_.prefix + ":" + settings_.layout + ":"),
      make_loop_(std::move(make_loop)),
      user_(user),
      slots_(kSlots) {
  if (is_cluster() || !where_.master.empty()) {
    guide_loop_ = make_loop_();
    guide_ = std::make_unique<Guide>(settings_, where_.master, where_.addresses, *guide_loop_,
                                     static_cast<Guide::User&>(*this));
  }
}

Servers::~Servers() = default;

void Servers::start() noexcept {
  guide_ != nullptr ? guide_->start() : on_places(Places::all_at(where_.addresses.front()));
}

void Servers::leave() noexcept {
  if (guide_ != nullptr) {
    guide_->stop();
  }
  for (const auto& server : servers_) {
    server->connection.leave();
  }
}

// ---- where keys are

Servers::Server* Servers::of(std::string_view key) const noexcept { return slots_[slot_of(key)]; }

Servers::Reach Servers::reach(int64_t now_ns) const noexcept {
  bool some = false, all = covered_;
  for (const auto& server : servers_) {
    if (server->has_slots) {
      const bool up = server->connection.ready() && !server->connection.stalled(now_ns);
      some = some || up;
      all = all && up;
    }
  }
  return !some ? Reach::kNone : all ? Reach::kAll : Reach::kSome;
}

bool Servers::reaches(std::string_view key, int64_t now_ns) const noexcept {
  const Server* server = of(key);
  return server != nullptr && server->connection.ready() && !server->connection.stalled(now_ns);
}

bool Servers::ready(std::string_view key) const noexcept {
  const Server* server = of(key);
  return server != nullptr && server->connection.ready() &&
         (held_.empty() || !held_.contains(slot_of(key)));
}

const Address* Servers::server_of(std::string_view key) const noexcept {
  return ready(key) ? &of(key)->connection.address() : nullptr;
}

bool Servers::has_all() const noexcept {
  return covered_ && held_.empty() &&
         std::all_of(servers_.begin(), servers_.end(), [](const auto& server) {
           return !server->has_slots || server->connection.ready();
         });
}

bool Servers::call(Script script, std::string_view key, std::span<const std::string_view> arguments,
                   Connection::Answered answered, void* context) noexcept {
  Server* server = of(key);
  return server != nullptr && server->connection.ready() &&
         server->connection.call(script, key, arguments, answered, context);
}

bool Servers::wait(std::string_view key, uint32_t replicas, int64_t ms,
                   Connection::Answered answered, void* context) noexcept {
  Server* server = of(key);
  return server != nullptr && server->connection.ready() &&
         server->connection.wait(replicas, ms, answered, context);
}

bool Servers::ask(std::string_view key, std::span<const std::string_view> words,
                  Connection::Answered answered, void* context) noexcept {
  Server* server = of(key);
  return server != nullptr && server->connection.ready() &&
         server->connection.ask(words, answered, context);
}

// The host is told to each of them.
void Servers::tell_hosts() noexcept {
  uint64_t most = 0;
  for (const auto& server : servers_) {
    most = std::max(most, server->has_slots ? server->hosts : 0);
  }
  if (most > 0) {
    user_.on_hosts(most);
  }
}

// ---- they move

Servers::Server& Servers::of_address(const Address& address) noexcept {
  for (const auto& server : servers_) {
    if (server->connection.address() == address) {
      return *server;
    }
  }
  servers_.push_back(std::make_unique<Server>(*this, address));
  return *servers_.back();
}

// Where hosts are told of. Of a cluster each server has one of its own, in the slots it has.
std::string Servers::own_key_of(const Server& server) const {
  constexpr unsigned kMostTags = 1'000'000;  // by then each slot has come
  std::string key = prefix_ + "hosts";
  if (!is_cluster()) {
    return key;
  }
  for (unsigned tag = 0; tag < kMostTags; ++tag) {
    std::string tagged = key + ":{" + std::to_string(tag) + "}";
    if (of(tagged) == &server) {
      return tagged;
    }
  }
  return {};
}

// One Sentinel's word parts nobody from a master that works: another has to say the same.
bool Servers::is_rumour(const Places& places) noexcept {
  if (is_cluster() || guide_ == nullptr || !has_all() ||
      slots_.front()->connection.address() == places.servers.front()) {
    rumour_ = Address();
    return false;
  }
  if (rumour_ == places.servers.front()) {
    return false;
  }
  rumour_ = places.servers.front();
  guide_->doubt();
  return true;
}

void Servers::on_places(Places places) noexcept {
  if (is_rumour(places)) {
    return;
  }
  for (const auto& server : servers_) {
    server->has_slots = false;
  }
  std::fill(slots_.begin(), slots_.end(), nullptr);
  std::vector<Server*> fresh;
  for (size_t number = 0; number < places.servers.size(); ++number) {
    const size_t count = servers_.size();
    Server& server = of_address(places.servers[number]);
    for (const Places::Range& range : places.ranges) {
      if (range.server == number) {
        std::fill(slots_.begin() + range.first, slots_.begin() + range.last + 1, &server);
      }
    }
    if (servers_.size() > count) {
      fresh.push_back(&server);
    }
  }
  for (Server* server : slots_) {
    if (server != nullptr) {
      server->has_slots = true;
    }
  }
  std::erase_if(fresh, [](const Server* server) { return !server->has_slots; });
  covered_ = std::find(slots_.begin(), slots_.end(), nullptr) == slots_.end();
  for (const auto& server : servers_) {
    if (server->has_slots) {
      server->connection.set_own_key(own_key_of(*server));
    }
  }
  // Those that have no slots any more go, but for one that was sent a call by another's word.
  std::vector<std::unique_ptr<Server>> gone;
  for (auto& server : servers_) {
    if (!server->has_slots && (server->connection.idle() || !server->connection.ready())) {
      gone.push_back(std::move(server));
    }
  }
  std::erase(servers_, nullptr);
  gone.clear();
  for (Server* server : fresh) {
    server->connection.start();
  }
  look_at_held();
}

// While a server is there, nobody misses the way to it.
void Servers::on_no_places(std::string_view why) noexcept {
  if (!has_all()) {
    user_.on_lost(why);
  }
}

// As long as it moves, where it is gets asked each second.
void Servers::hold(const Moved& moved, const Address& from) noexcept {
  const auto [held, fresh] = held_.try_emplace(moved.slot);
  held->second = {from, monotonic_ns() + kHeldNs};
  if (fresh) {
    user_.on_lost("Redis at " + text_of(from) + ": slot " + std::to_string(moved.slot) +
                  " is being moved to " + text_of(moved.server) +
                  ", and what is in it waits until it has been");
  }
}

void Servers::look_at_held() noexcept {
  if (held_.empty()) {
    return;
  }
  const int64_t now_ns = monotonic_ns();
  std::erase_if(held_, [&](const auto& held) {
    const Server* const server = slots_[held.first];
    return now_ns > held.second.until_ns ||
           (server != nullptr && server->connection.address() != held.second.from);
  });
  if (!held_.empty()) {
    guide_->doubt();
  } else if (has_all()) {
    user_.on_ready("Redis at " + text_of(slots_.front()->connection.address()));
  }
}

Connection* Servers::moved(Connection& connection, std::string_view error) noexcept {
  if (!is_cluster()) {
    if (settings_.follows != Settings::Follows::kAll) {
      user_.on_lost("Redis at " + text_of(connection.address()) +
                    ": it is one of a cluster: name several of its nodes");
    }
    return nullptr;
  }
  const std::optional<Moved> moved = read_moved(error, connection.address());
  if (!moved) {
    return nullptr;
  }
  guide_->doubt();
  if (moved->for_now && settings_.follows != Settings::Follows::kAll) {
    hold(*moved, connection.address());
    return nullptr;
  }
  const size_t count = servers_.size();
  if (count >= kMostServers) {
    return nullptr;
  }
  Server& server = of_address(moved->server);
  if (servers_.size() > count) {
    server.connection.start();
  }
  if (!moved->for_now) {
    slots_[moved->slot] = &server;
    look_at_held();
  }
  return settings_.follows == Settings::Follows::kNone ? nullptr : &server.connection;
}

}  // namespace penstock::redis
