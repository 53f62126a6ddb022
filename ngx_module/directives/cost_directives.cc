#include "ngx_module/directives/cost_directives.h"

#include "ngx_module/conf/conf.h"
#include "ngx_module/request/body.h"

namespace penstock {

char* read_cost(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& loc = *static_cast<LocConf*>(conf);
  Unit unit = Unit::kRequests;
  if (!parse_unit(view(arg(cf, 1)), unit)) {
    return refuse(cf,
                  "invalid unit \"%V\" of penstock_cost: it is r, t (model tokens) or gs (GPU "
                  "seconds)",
                  &arg(cf, 1));
  }
  for (const CostFormula* cost : loc.costs) {
    if (cost->unit == unit) {
      return refuse(cf, "penstock_cost %V stands here twice", &arg(cf, 1));
    }
  }
  CostFormula* const cost = make<CostFormula>(cf->pool);
  if (cost == nullptr || loc.costs.push(cf->pool, cost) == nullptr) {
    return kConfError;
  }
  cost->unit = unit;
  if (view(arg(cf, 2)).starts_with('$')) {
    return compile_value(cf, arg(cf, 2), cost->amount);
  }
  auto formula = limit::Formula::parse(view(arg(cf, 2)));
  if (!formula) {
    return refuse(cf, "invalid formula \"%V\": %s", &arg(cf, 2), formula.error().message.c_str());
  }
  if (formula->names().empty() && !(formula->evaluate({}) >= 0)) {
    return refuse(cf, "invalid formula \"%V\": a cost is a number of at least 0, such as 1",
                  &arg(cf, 2));
  }
  for (const std::string_view name : formula->names()) {
    if (!want_body_field(cf, name)) {
      return kConfError;
    }
  }
  cost->formula = *formula;
  return NGX_CONF_OK;
}

namespace {

constexpr ngx_int_t kMostImageCost = 1'000'000'000;

}  // namespace

char* read_image_cost(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& loc = *static_cast<LocConf*>(conf);
  const ngx_str_t& text = arg(cf, 1);
  if (loc.image_cost != NGX_CONF_UNSET_UINT) {
    return const_cast<char*>("is duplicate");
  }
  const ngx_int_t tokens = text.len > 1 && text.data[text.len - 1] == 't'
                               ? ngx_atoi(text.data, text.len - 1)
                               : NGX_ERROR;
  if (tokens == NGX_ERROR || tokens > kMostImageCost) {
    return refuse(
        cf,
        "invalid cost \"%V\" of penstock_image_cost: it is a number of model tokens, such "
        "as 1000t, and at most %it",
        &text, kMostImageCost);
  }
  loc.image_cost = static_cast<ngx_uint_t>(tokens);
  return NGX_CONF_OK;
}

}  // namespace penstock
