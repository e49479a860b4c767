#include "router/frontend/test_model.h"

#include <glog/logging.h>

#include <utility>

#include "engine/text/bpe_trainer.h"

namespace tarn::router {

std::shared_ptr<const engine::TextModel> MakeTestModelWithoutChat() {
  auto trained = engine::TrainBpe(engine::DemoCorpus(), {.vocab_size = 1024});
  CHECK(trained.ok()) << trained.status();
  auto tokenizer = engine::Tokenizer::FromJson(engine::TokenizerJson(*trained),
                                               engine::TokenizerConfigJson(*trained));
  CHECK(tokenizer.ok()) << tokenizer.status();
  auto model = std::make_shared<engine::TextModel>();
  model->name = "tiny";
  model->tokenizer = *std::move(tokenizer);
  model->config.vocab_size = 1024;
  model->config.max_position = 4096;
  model->generation.eos_token_ids = {trained->eos()};
  model->generation.temperature = 0;
  return model;
}

std::shared_ptr<const engine::TextModel> MakeTestModel() {
  auto model = std::make_shared<engine::TextModel>(*MakeTestModelWithoutChat());
  model->chat = engine::ChatTemplate::FromText(
      "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
      "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
      "{{ '<|im_start|>assistant\n' }}{% endif %}",
      model->tokenizer);
  CHECK(model->chat.ok()) << model->chat.status();
  return model;
}

}  // namespace tarn::router
