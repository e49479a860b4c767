#include "router/frontend/openai/api.h"

#include <glog/logging.h>

#include <cctype>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "engine/text/utf8.h"
#include "router/frontend/completion.h"
#include "router/frontend/openai/error.h"
#include "router/frontend/openai/response.h"

namespace tarn::router::openai {
namespace {

constexpr char kTenantHeader[] = "x-tarn-tenant";
constexpr char kModels[] = "/v1/models";

const HttpHeaders& JsonHeaders() {
  static const auto* const headers = new HttpHeaders{{"Content-Type", "application/json"}};
  return *headers;
}

const char* NameOf(bool chat) { return chat ? "/v1/chat/completions" : "/v1/completions"; }

// One request under way.
class HttpCall : public ActiveCall,
                 public CompletionListener,
                 public std::enable_shared_from_this<HttpCall> {
 public:
  HttpCall(const ApiParts& parts, bool stream, ResponseFacts facts,
           std::shared_ptr<HttpResponder> responder)
      : parts_(parts),
        stream_(stream),
        api_(NameOf(facts.chat)),
        id_(facts.id),
        response_(std::move(facts), parts.intake->shared_model()),
        responder_(std::move(responder)) {}

  // May end the call at once.
  void Start(CompletionRequest request) {
    EventLoop* const loop = parts_.loop;
    responder_->OnClose([loop, weak = weak_from_this()] {
      loop->Post([weak] {
        if (const auto call = weak.lock()) call->OnClientGone();
      });
    });
    auto completion = Completion::Start(loop, parts_.gateway, parts_.intake->shared_model(),
                                        std::move(request), this);
    if (!completion.ok()) return OnEnd(completion.status(), {});
    completion_ = *std::move(completion);
  }

  void OnChunk(CompletionChunk chunk) override {
    if (!stream_) return response_.Add(chunk);
    if (!Write(response_.Events(chunk))) OnClientGone();
  }

  void OnEnd(const absl::Status& status, const CompletionUsage& usage) override {
    if (!status.ok() && !begun_) {
      ReplyError(*responder_, status);
    } else if (!stream_) {
      responder_->Reply(200, JsonHeaders(), response_.Body(usage));
    } else {
      Write(status.ok() ? response_.LastEvents(usage) : Response::ErrorEvents(status));
      responder_->End();
    }
    Finish(status);
  }

 private:
  bool Write(std::string events) {
    if (events.empty()) return true;
    if (!begun_) {
      begun_ = true;
      // The last one is for nginx, which else collects events before it passes them on.
      const HttpHeaders headers = {{"Content-Type", "text/event-stream; charset=utf-8"},
                                   {"Cache-Control", "no-cache"},
                                   {"X-Accel-Buffering", "no"}};
      if (!responder_->StartStream(200, headers)) return false;
    }
    return responder_->Write(std::move(events));
  }

  void OnClientGone() { Finish(absl::CancelledError("the client has gone, or reads too slowly")); }

  // Destroys this.
  void Finish(const absl::Status& status) {
    parts_.intake->Count(api_, status);
    VLOG(1) << api_ << " " << id_ << ": " << status;
    parts_.calls->Remove(this);
  }

  const ApiParts& parts_;
  const bool stream_;
  const std::string api_, id_;
  Response response_;
  const std::shared_ptr<HttpResponder> responder_;
  bool begun_ = false;  // the head is out
  std::unique_ptr<Completion> completion_;
};

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const int lower = std::tolower(static_cast<unsigned char>(c));
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

// A model's name may have a slash in it, which clients escape or not.
std::string PercentDecoded(const std::string& path) {
  std::string text;
  for (size_t i = 0; i < path.size(); ++i) {
    const bool escape = path[i] == '%' && i + 2 < path.size() && HexValue(path[i + 1]) >= 0 &&
                        HexValue(path[i + 2]) >= 0;
    if (escape) {
      text += static_cast<char>(HexValue(path[i + 1]) * 16 + HexValue(path[i + 2]));
      i += 2;
    } else {
      text += path[i];
    }
  }
  return text;
}

// The field as this client called it.
absl::Status WithFieldName(const absl::Status& status, const std::string& max_tokens_field) {
  constexpr char kField[] = "max_tokens";
  const std::string message = Message(status);
  if (message.rfind(std::string(kField) + ":", 0) != 0) return status;
  return absl::Status(status.code(), max_tokens_field + message.substr(sizeof(kField) - 1));
}

}  // namespace

struct Api::Accepted {
  CompletionRequest request;
  ResponseFacts facts;
};

Api::Api(ApiParts parts) : parts_(parts), started_(parts.loop->Now()) {}

void Api::AddRoutes(HttpRouter& router) {
  for (const bool chat : {true, false}) {
    router.Handle("POST", NameOf(chat),
                  [this, chat](HttpRequest request, std::shared_ptr<HttpResponder> responder) {
                    Serve(chat, std::move(request), std::move(responder));
                  });
  }
  router.Handle(
      "GET", kModels, [this](const HttpRequest&, const std::shared_ptr<HttpResponder>& responder) {
        const OrderedJson list = {{"object", "list"}, {"data", OrderedJson::array({ModelJson()})}};
        responder->Reply(200, JsonHeaders(), Dump(list));
      });
  router.Handle(
      "GET", absl::StrCat(kModels, "/*"),
      [this](const HttpRequest& request, const std::shared_ptr<HttpResponder>& responder) {
        ReplyModel(PercentDecoded(request.path.substr(sizeof(kModels))), *responder);
      });
}

void Api::Serve(bool chat, HttpRequest request, std::shared_ptr<HttpResponder> responder) {
  auto accepted = Accept(chat, request);
  if (!accepted.ok()) {
    parts_.intake->Count(NameOf(chat), accepted.status());
    return ReplyError(*responder, accepted.status());
  }
  parts_.loop->Post([this, accepted = std::make_shared<Accepted>(*std::move(accepted)),
                     responder = std::move(responder)] {
    auto call = std::make_shared<HttpCall>(parts_, accepted->request.stream,
                                           std::move(accepted->facts), responder);
    parts_.calls->Add(call);
    call->Start(std::move(accepted->request));
  });
}

absl::StatusOr<Api::Accepted> Api::Accept(bool chat, const HttpRequest& request) const {
  const absl::Time received = parts_.loop->Now();
  ASSIGN_OR_RETURN(const ApiRequest asked, Parse(chat, request));
  RETURN_IF_ERROR(parts_.intake->Check(asked.options));
  ASSIGN_OR_RETURN(std::vector<std::vector<TokenId>> prompts, Tokenize(asked));
  auto completion =
      parts_.intake->Accept(std::move(prompts), asked.options, received, parts_.loop->Now());
  if (!completion.ok()) return WithFieldName(completion.status(), asked.max_tokens_field);
  Accepted accepted = {.request = *std::move(completion)};
  accepted.facts = {.chat = chat,
                    .logprobs = asked.logprobs(),
                    .include_usage = asked.include_usage,
                    .id = parts_.intake->DrawId(chat ? "chatcmpl" : "cmpl"),
                    .created = absl::ToUnixSeconds(received),
                    .choices = accepted.request.choice_count()};
  return accepted;
}

absl::StatusOr<ApiRequest> Api::Parse(bool chat, const HttpRequest& request) const {
  ASSIGN_OR_RETURN(const Json body, ParseObject(request.body));
  const FrontendOptions& options = parts_.intake->options();
  ASSIGN_OR_RETURN(ApiRequest asked,
                   chat ? ParseChatRequest(body, options) : ParseCompletionRequest(body, options));
  const std::string* tenant = request.FindHeader(kTenantHeader);
  if (tenant == nullptr) return asked;
  if (engine::ValidUtf8Prefix(*tenant) != tenant->size()) {
    return absl::InvalidArgumentError(absl::StrCat(kTenantHeader, ": is not valid UTF-8"));
  }
  asked.options.set_tenant(*tenant);
  return asked;
}

absl::StatusOr<std::vector<std::vector<TokenId>>> Api::Tokenize(const ApiRequest& request) const {
  std::vector<std::vector<TokenId>> prompts;
  if (request.chat) {
    ASSIGN_OR_RETURN(std::vector<TokenId> tokens,
                     parts_.intake->Render(request.messages, request.render));
    prompts.push_back(std::move(tokens));
  }
  for (const auto& prompt : request.prompts) {
    if (const auto* tokens = std::get_if<std::vector<TokenId>>(&prompt)) {
      prompts.push_back(*tokens);
      continue;
    }
    ASSIGN_OR_RETURN(std::vector<TokenId> tokens,
                     parts_.intake->Encode(std::get<std::string>(prompt)));
    prompts.push_back(std::move(tokens));
  }
  return prompts;
}

OrderedJson Api::ModelJson() const {
  const engine::TextModel& model = parts_.intake->model();
  return {{"id", model.name},
          {"object", "model"},
          {"created", absl::ToUnixSeconds(started_)},
          {"owned_by", "tarn"},
          {"max_model_len", model.config.max_position}};
}

void Api::ReplyModel(const std::string& name, HttpResponder& responder) const {
  const absl::Status served = parts_.intake->CheckModel(name);
  if (!served.ok()) return ReplyError(responder, served);
  responder.Reply(200, JsonHeaders(), Dump(ModelJson()));
}

}  // namespace tarn::router::openai
