#include "router/dashboard/dashboard.h"

#include <google/protobuf/util/json_util.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "router/dashboard/page.h"

namespace tarn::router {
namespace {

using Json = nlohmann::ordered_json;

Json ToJson(const v1::GetStatusResponse& status) {
  google::protobuf::util::JsonPrintOptions options;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string text;
  const auto printed = google::protobuf::util::MessageToJsonString(status, &text, options);
  return printed.ok() ? Json::parse(text, nullptr, false) : Json::object();
}

Json Percentiles(const metrics::Histogram* histogram) {
  const metrics::HistogramSnapshot seen =
      histogram == nullptr ? metrics::HistogramSnapshot() : histogram->Snapshot();
  const uint64_t count = seen.Count();
  const auto quantile = [&](double q) { return count == 0 ? Json() : Json(seen.Quantile(q)); };
  return {{"count", count},
          {"p50_s", quantile(0.5)},
          {"p90_s", quantile(0.9)},
          {"p99_s", quantile(0.99)}};
}

}  // namespace

void AddDashboard(HttpRouter& router, DashboardParts parts) {
  router.Handle("GET", "/",
                [](const HttpRequest&, const std::shared_ptr<HttpResponder>& responder) {
                  responder->Reply(200,
                                   {{"Content-Type", "text/html; charset=utf-8"},
                                    {"Content-Security-Policy",
                                     "default-src 'none'; style-src 'unsafe-inline'; script-src "
                                     "'unsafe-inline'; connect-src 'self'"}},
                                   kDashboardPage);
                });
  router.Handle(
      "GET", "/api/status",
      [parts = std::move(parts)](const HttpRequest&, std::shared_ptr<HttpResponder> responder) {
        parts.loop->Post([&parts, responder = std::move(responder)] {
          Json body = ToJson(parts.status());
          body["time_to_first_token"] = Percentiles(parts.time_to_first_token);
          responder->Reply(200,
                           {{"Content-Type", "application/json"}, {"Cache-Control", "no-store"}},
                           body.dump(-1, ' ', false, Json::error_handler_t::replace));
        });
      });
}

}  // namespace tarn::router
